//go:build linux || darwin

package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// dirFile is an open regular file of the host.
type dirFile struct {
	dir      *DirFS
	file     *os.File
	writable bool
}

var (
	_ File      = (*dirFile)(nil)
	_ Appender  = (*dirFile)(nil)
	_ Allocator = (*dirFile)(nil)

	_ ExtentSeeker = (*dirFile)(nil)
	_ RangeCopier  = (*dirFile)(nil)
	_ FileLinker   = (*dirFile)(nil)
)

func (f *dirFile) fd() int { return int(f.file.Fd()) }

// ReadAt implements File.
func (f *dirFile) ReadAt(p []byte, off int64) (int, error) { return f.file.ReadAt(p, off) }

// WriteAt implements File.
func (f *dirFile) WriteAt(p []byte, off int64) (int, error) {
	if !f.writable {
		return 0, EBADF
	}
	return f.file.WriteAt(p, off)
}

// Append implements Appender. On Linux it is atomic; on Darwin two appends at once may overwrite each other.
func (f *dirFile) Append(p []byte) (int, error) {
	if !f.writable {
		return 0, EBADF
	}
	if n, done, err := appendTo(f.fd(), p); done {
		return n, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd(), &st); err != nil {
		return 0, err
	}
	return f.file.WriteAt(p, st.Size)
}

// Allocate implements Allocator.
func (f *dirFile) Allocate(off, length int64, flags AllocFlag) error {
	if err := flags.Check(off, length); err != nil {
		return err
	}
	if !f.writable {
		return EBADF
	}
	return allocate(f.fd(), off, length, flags)
}

// SeekExtent implements ExtentSeeker.
func (f *dirFile) SeekExtent(off int64, kind Extent) (int64, error) {
	whence := seekData
	if kind == ExtentHole {
		whence = seekHole
	}
	return unix.Seek(f.fd(), off, whence) // the descriptor's own offset is not used for anything
}

// CopyRange implements RangeCopier.
func (f *dirFile) CopyRange(to File, srcOff, dstOff, length int64) (int64, error) {
	dst, ok := to.(*dirFile)
	switch {
	case !ok || dst.dir != f.dir:
		return 0, EXDEV
	case !dst.writable:
		return 0, EBADF
	}
	return copyRange(f.fd(), dst.fd(), srcOff, dstOff, length)
}

// LinkTo implements FileLinker.
func (f *dirFile) LinkTo(newName string) error {
	at, err := f.dir.child(newName)
	if err != nil {
		return err
	}
	defer at.close()
	return at.linkOpen(f.fd())
}

// Stat implements File.
func (f *dirFile) Stat() (Attr, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd(), &st); err != nil {
		return Attr{}, err
	}
	return f.dir.attr(&st), nil
}

// SetAttr implements File.
func (f *dirFile) SetAttr(set SetAttr) error {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd(), &st); err != nil {
		return err
	}
	if err := f.dir.allowed(&st, set); err != nil {
		return err
	}
	if set.Has(SetSize) {
		if !f.writable {
			return EINVAL
		}
		if err := unix.Ftruncate(f.fd(), set.Size); err != nil {
			return err
		}
	}
	if set.Has(SetMode) {
		if err := unix.Fchmod(f.fd(), uint32(set.Mode&ModeBits)); err != nil {
			return err
		}
	}
	if set.Mask&(SetAtime|SetMtime) != 0 {
		return chtimesOpen(f.fd(), &st, set)
	}
	return nil
}

// Sync implements File.
func (f *dirFile) Sync() error { return f.file.Sync() }

// Close implements File.
func (f *dirFile) Close() error { return f.file.Close() }
