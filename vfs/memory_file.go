package vfs

import (
	"io"
	"maps"
	"sync/atomic"
	"time"
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

// zero clears the pages there are in a range.
func (d *memoryData) zero(off, length int64) {
	for length > 0 {
		n := min(length, memoryPage-off%memoryPage)
		if p := d.pages[off/memoryPage]; p != nil {
			clear(p[off%memoryPage : off%memoryPage+n])
		}
		off, length = off+n, length-n
	}
}

// punch makes a range within the file read as zeros, and gives back the pages that lie within it.
func (d *memoryData) punch(off, length int64) {
	if length <= 0 {
		return
	}
	end := off + length
	first, last := (off+memoryPage-1)/memoryPage, end/memoryPage
	if end == d.size {
		last = (end + memoryPage - 1) / memoryPage // the rest of the last page is zero already
	}
	if last < first { // within one page
		d.zero(off, length)
		return
	}
	d.zero(off, first*memoryPage-off)
	d.zero(last*memoryPage, end-last*memoryPage)
	if last-first > int64(len(d.pages)) {
		for i := range d.pages {
			if i >= first && i < last {
				d.pages = without(d.pages, i, &d.most)
			}
		}
		return
	}
	for i := first; i < last; i++ {
		d.pages = without(d.pages, i, &d.most)
	}
}

// nextHole returns where no page is, at off or after it; off is within the file.
func (d *memoryData) nextHole(off int64) int64 {
	for i := off / memoryPage; d.pages[i] != nil; i++ {
		off = (i + 1) * memoryPage
	}
	return min(off, d.size)
}

// nextData returns where a page is, at off or after it.
func (d *memoryData) nextData(off int64) (int64, error) {
	at := off / memoryPage
	if d.pages[at] != nil {
		return off, nil
	}
	next := int64(-1)
	for i := range d.pages {
		if i > at && (next < 0 || i < next) {
			next = i
		}
	}
	if next < 0 {
		return 0, ENXIO
	}
	return next * memoryPage, nil
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

	_ ExtentSeeker = (*memoryFile)(nil)
	_ RangeCopier  = (*memoryFile)(nil)
	_ FileLinker   = (*memoryFile)(nil)
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

// Allocate implements Allocator. Storage beyond the end of the file is not reserved, only checked against the quota.
func (f *memoryFile) Allocate(off, length int64, flags AllocFlag) error {
	if err := flags.Check(off, length); err != nil {
		return err
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if !f.writable {
		return EBADF
	}
	data := &f.node.data
	if flags&AllocPunchHole != 0 {
		before := data.bytes()
		data.punch(off, min(length, data.size-off))
		f.fs.bytes += data.bytes() - before
		f.node.touch()
		return nil
	}
	end := off + length
	if flags&AllocKeepSize != 0 {
		if end = min(end, data.size); end <= off {
			return nil
		}
	}
	if err := f.prepare(off, end-off); err != nil {
		return err
	}
	if flags&AllocZeroRange != 0 {
		data.zero(off, end-off)
	}
	data.size = max(data.size, end)
	f.node.touch()
	return nil
}

// SeekExtent implements ExtentSeeker.
func (f *memoryFile) SeekExtent(off int64, kind Extent) (int64, error) {
	f.fs.mu.RLock()
	defer f.fs.mu.RUnlock()
	if off < 0 || off >= f.node.data.size {
		return 0, ENXIO
	}
	if kind == ExtentHole {
		return f.node.data.nextHole(off), nil
	}
	return f.node.data.nextData(off)
}

// CopyRange implements RangeCopier.
func (f *memoryFile) CopyRange(to File, srcOff, dstOff, length int64) (int64, error) {
	dst, ok := to.(*memoryFile)
	switch {
	case !ok || dst.fs != f.fs:
		return 0, EXDEV
	case srcOff < 0 || dstOff < 0 || length < 0:
		return 0, EINVAL
	case dst.node == f.node && srcOff < dstOff+length && dstOff < srcOff+length:
		return 0, EINVAL
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	buf := make([]byte, min(length, memoryCopy))
	var done int64
	for done < length {
		n, _ := f.node.data.readAt(buf[:min(length-done, memoryCopy)], srcOff+done) // only EOF
		if n == 0 {
			break
		}
		if _, err := dst.write(buf[:n], dstOff+done); err != nil {
			if done > 0 {
				break
			}
			return 0, err
		}
		done += int64(n)
	}
	return done, nil
}

// LinkTo implements FileLinker.
func (f *memoryFile) LinkTo(newName string) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	dir, slot, err := f.fs.vacant(newName)
	if err != nil {
		return err
	}
	if !f.node.nameless {
		return ENOENT
	}
	if err := f.fs.charge(memoryEntryCost); err != nil {
		return err
	}
	f.node.nameless = false
	f.node.nlink = 1
	f.node.ctime = time.Now()
	f.fs.attach(dir, slot.name, f.node)
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
