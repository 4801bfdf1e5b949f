package vfstest

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"gondolin/vfs"
)

// Mknod implements vfs.Mknoder.
func (p pathFS) Mknod(name string, kind vfs.Mode, create vfs.Create) error {
	return unix.Mknod(p.path(name), uint32(kind|create.Perm), 0)
}

// TmpFile implements vfs.TmpFiler.
func (p pathFS) TmpFile(dir string, create vfs.Create) (vfs.File, error) {
	fd, err := unix.Open(p.path(dir), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, uint32(create.Perm))
	if err != nil {
		return nil, err
	}
	return &pathFile{f: os.NewFile(uintptr(fd), dir), root: p}, nil
}

// GetXattr implements vfs.XattrFS.
func (p pathFS) GetXattr(name, attr string) ([]byte, error) {
	buf := make([]byte, vfs.MaxXattrValue)
	n, err := unix.Lgetxattr(p.path(name), attr, buf)
	return buf[:max(0, n)], err
}

// SetXattr implements vfs.XattrFS.
func (p pathFS) SetXattr(name, attr string, value []byte, flags vfs.XattrFlag) error {
	return unix.Lsetxattr(p.path(name), attr, value, int(flags))
}

// ListXattr implements vfs.XattrFS. What security modules add is not the file system's.
func (p pathFS) ListXattr(name string) ([]string, error) {
	buf := make([]byte, vfs.MaxXattrList)
	n, err := unix.Llistxattr(p.path(name), buf)
	if err != nil {
		return nil, err
	}
	var names []string
	for attr := range bytes.SplitSeq(buf[:n], []byte{0}) {
		if strings.HasPrefix(string(attr), "user.") {
			names = append(names, string(attr))
		}
	}
	return names, nil
}

// RemoveXattr implements vfs.XattrFS.
func (p pathFS) RemoveXattr(name, attr string) error { return unix.Lremovexattr(p.path(name), attr) }

// Allocate implements vfs.Allocator.
func (p *pathFile) Allocate(off, length int64, flags vfs.AllocFlag) error {
	return unix.Fallocate(int(p.f.Fd()), uint32(flags), off, length)
}

// SeekExtent implements vfs.ExtentSeeker.
func (p *pathFile) SeekExtent(off int64, kind vfs.Extent) (int64, error) {
	const seekData, seekHole = 3, 4
	whence := seekData
	if kind == vfs.ExtentHole {
		whence = seekHole
	}
	return unix.Seek(int(p.f.Fd()), off, whence)
}

// CopyRange implements vfs.RangeCopier.
func (p *pathFile) CopyRange(to vfs.File, srcOff, dstOff, length int64) (int64, error) {
	dst, ok := to.(*pathFile)
	if !ok {
		return 0, vfs.EXDEV
	}
	n, err := unix.CopyFileRange(int(p.f.Fd()), &srcOff, int(dst.f.Fd()), &dstOff, int(length), 0)
	return int64(max(0, n)), err
}

// LinkTo implements vfs.FileLinker.
func (p *pathFile) LinkTo(newName string) error {
	return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(p.f.Fd())), unix.AT_FDCWD, p.root.path(newName), unix.AT_SYMLINK_FOLLOW)
}
