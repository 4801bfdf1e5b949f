package vfs

import (
	"io"
	"maps"
	"sync/atomic"
)

// memoryData is sparse content: pages that were never written do not exist and read as zeros.
type memoryData struct {
	size  int64
	pages map[int64]*[memoryPage]byte
	most  int // how many pages the map has had room for
}

// without deletes a key of a map that has had room for *most. Go's maps never shrink, so that a guest could make a few
// entries cost what many had cost, beyond its quota: most of them gone, a new map takes the place of the old.
func without[K comparable, V any](m map[K]V, key K, most *int) map[K]V {
	*most = max(*most, len(m))
	delete(m, key)
	if *most < memoryMinShrink || len(m) > *most/4 {
		return m
	}
	smaller := make(map[K]V, len(m))
	maps.Copy(smaller, m)
	*most = len(smaller)
	return smaller
}

// bytes returns the storage in use.
func (d *memoryData) bytes() int64 { return int64(len(d.pages)) * memoryPage }

// truncate sets the size; what is cut off reads as zeros if the file grows again.
func (d *memoryData) truncate(size int64) {
	if size < d.size {
		last := size / memoryPage
		if p := d.pages[last]; p != nil && size%memoryPage != 0 {
			clear(p[size%memoryPage:])
		} else if size%memoryPage == 0 {
			last--
		}
		d.cutAfter(last)
	}
	d.size = size
}

// cutAfter deletes the pages after last, by the cheaper of two ways.
func (d *memoryData) cutAfter(last int64) {
	end := (d.size + memoryPage - 1) / memoryPage
	if end-last <= int64(len(d.pages)) {
		for i := last + 1; i < end; i++ {
			d.pages = without(d.pages, i, &d.most)
		}
		return
	}
	for i := range d.pages {
		if i > last {
			d.pages = without(d.pages, i, &d.most)
		}
	}
}

// missing counts the pages that a write of n bytes at off would add.
func (d *memoryData) missing(off, n int64) int64 {
	var count int64
	for i := off / memoryPage; i <= (off+n-1)/memoryPage; i++ {
		if d.pages[i] == nil {
			count++
		}
	}
	return count
}

// reserve adds the pages for n bytes at off.
func (d *memoryData) reserve(off, n int64) {
	if d.pages == nil {
		d.pages = map[int64]*[memoryPage]byte{}
	}
	for i := off / memoryPage; i <= (off+n-1)/memoryPage; i++ {
		if d.pages[i] == nil {
			d.pages[i] = new([memoryPage]byte)
		}
	}
}

func (d *memoryData) readAt(p []byte, off int64) (int, error) {
	if off >= d.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), d.size-off))
	for done := 0; done < n; {
		at := off + int64(done)
		chunk := p[done:min(n, done+int(memoryPage-at%memoryPage))]
		if page := d.pages[at/memoryPage]; page != nil {
			copy(chunk, page[at%memoryPage:])
		} else {
			clear(chunk)
		}
		done += len(chunk)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// writeAt stores p; the pages are reserved.
func (d *memoryData) writeAt(p []byte, off int64) {
	for done := 0; done < len(p); {
		at := off + int64(done)
		done += copy(d.pages[at/memoryPage][at%memoryPage:], p[done:])
	}
	d.size = max(d.size, off+int64(len(p)))
}

// Open implements FS.
func (m *MemoryFS) Open(name string, flags OpenFlag, create Create) (File, error) {
	if flags&Trunc != 0 && flags&Write == 0 {
		return nil, EINVAL
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.openNode(name, flags, create)
	if err != nil {
		return nil, err
	}
	if flags&Trunc != 0 {
		if err := m.setAttr(n, SetAttr{Mask: SetSize}); err != nil {
			return nil, err
		}
	}
	n.open++
	return &memoryFile{fs: m, node: n, writable: flags&Write != 0}, nil
}

// openNode finds or makes the file. m.mu is held for writing.
func (m *MemoryFS) openNode(name string, flags OpenFlag, create Create) (*memoryNode, error) {
	if name == "." {
		if flags&CreateFile != 0 && flags&Excl != 0 {
			return nil, EEXIST
		}
		return nil, EISDIR
	}
	dir, slot, err := m.entry(name)
	switch {
	case err != nil:
		return nil, err
	case slot.node == nil && flags&CreateFile == 0:
		return nil, ENOENT
	case slot.node == nil:
		return m.add(dir, slot.name, ModeRegular|create.Perm&ModeBits, create)
	case flags&CreateFile != 0 && flags&Excl != 0:
		return nil, EEXIST
	}
	return slot.node, openable(slot.node.mode)
}

// openable returns the error for opening an entry of a kind other than regular.
func openable(mode Mode) error {
	switch mode.Type() {
	case ModeRegular:
		return nil
	case ModeDir:
		return EISDIR
	case ModeSymlink:
		return ELOOP
	default:
		return EPERM
	}
}

// memoryFile is an open file of a MemoryFS.
type memoryFile struct {
	fs       *MemoryFS
	node     *memoryNode
	writable bool
	closed   atomic.Bool
}

var (
	_ File      = (*memoryFile)(nil)
	_ Appender  = (*memoryFile)(nil)
	_ Allocator = (*memoryFile)(nil)
)

// ReadAt implements File.
func (f *memoryFile) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, EINVAL
	}
	f.fs.mu.RLock()
	defer f.fs.mu.RUnlock()
	return f.node.data.readAt(p, off)
}

// WriteAt implements File.
func (f *memoryFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.write(p, off)
}

// Append implements Appender.
func (f *memoryFile) Append(p []byte) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.write(p, f.node.data.size)
}

// write needs fs.mu for writing.
func (f *memoryFile) write(p []byte, off int64) (int, error) {
	if err := f.prepare(off, int64(len(p))); err != nil || len(p) == 0 {
		return 0, err
	}
	f.node.data.writeAt(p, off)
	f.node.touch()
	return len(p), nil
}

// prepare charges and reserves storage. fs.mu is held for writing.
func (f *memoryFile) prepare(off, length int64) error {
	switch {
	case !f.writable:
		return EBADF
	case off < 0:
		return EINVAL
	case off > MaxFileSize-length:
		return EFBIG
	case length == 0:
		return nil
	case length/memoryPage > (f.fs.cfg.MaxBytes / memoryPage):
		return ENOSPC // before counting pages one by one
	}
	if err := f.fs.charge(f.node.data.missing(off, length) * memoryPage); err != nil {
		return err
	}
	f.node.data.reserve(off, length)
	return nil
}

// Allocate implements Allocator.
func (f *memoryFile) Allocate(off, length int64) error {
	if length <= 0 {
		return EINVAL
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.prepare(off, length); err != nil {
		return err
	}
	f.node.data.size = max(f.node.data.size, off+length)
	f.node.touch()
	return nil
}

// Stat implements File.
func (f *memoryFile) Stat() (Attr, error) {
	f.fs.mu.RLock()
	defer f.fs.mu.RUnlock()
	return f.node.attr(), nil
}

// SetAttr implements File.
func (f *memoryFile) SetAttr(set SetAttr) error {
	if set.Has(SetSize) && !f.writable {
		return EINVAL // ftruncate(2) on a file not open for writing
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.fs.setAttr(f.node, set)
}

// Sync implements File; memory has nothing to make durable.
func (f *memoryFile) Sync() error { return nil }

// Close implements File.
func (f *memoryFile) Close() error {
	if f.closed.Swap(true) {
		return EBADF
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.node.open--
	f.fs.release(f.node)
	return nil
}
