package vfs

import (
	"errors"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// openPath opens a directory for *at calls only, which needs no read permission.
const openPath = unix.O_PATH

// noOpenat2 remembers that openat2 is missing (before Linux 5.6) or filtered.
var noOpenat2 atomic.Bool

// openBeneath opens a directory below root with no link in its path.
func openBeneath(root int, dir string) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	if !noOpenat2.Load() {
		fd, err := unix.Openat2(root, dir, &how)
		switch {
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM):
			noOpenat2.Store(true)
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR): // a rename went by
		default:
			return fd, err
		}
	}
	return walkBeneath(root, dir)
}

// renameat is renameat2(2); its flags are those of the guest.
func renameat(from, to dirAt, flags RenameFlag) error {
	return unix.Renameat2(from.fd, from.base, to.fd, to.base, uint(flags))
}

// chmod sets the permission bits of an entry that is not a link.
func (at dirAt) chmod(mode Mode) error {
	err := unix.Fchmodat(at.fd, at.base, uint32(mode), unix.AT_SYMLINK_NOFOLLOW)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EPERM) {
		return err
	}
	// Before Linux 6.6 there is no fchmodat2: name the inode through a descriptor.
	fd, openErr := openat(at.fd, at.base, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if openErr != nil {
		return openErr
	}
	defer closeFD(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if Mode(st.Mode).IsSymlink() {
		return EOPNOTSUPP
	}
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), uint32(mode))
}

// timespecs selects the times to set (utimensat(2)).
func timespecs(set SetAttr) []unix.Timespec {
	return []unix.Timespec{
		timespec(set.Has(SetAtime), set.Atime.Unix(), int64(set.Atime.Nanosecond())),
		timespec(set.Has(SetMtime), set.Mtime.Unix(), int64(set.Mtime.Nanosecond())),
	}
}

//nolint:revive // flag-parameter: one selector of two equal calls.
func timespec(use bool, sec, nsec int64) unix.Timespec {
	if !use {
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	return unix.Timespec{Sec: sec, Nsec: nsec}
}

// chtimes sets times of the entry itself.
func (at dirAt) chtimes(_ string, set SetAttr) error {
	return unix.UtimesNanoAt(at.fd, at.base, timespecs(set), unix.AT_SYMLINK_NOFOLLOW)
}

// chtimesOpen sets times of an open file.
func chtimesOpen(fd int, _ *unix.Stat_t, set SetAttr) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), timespecs(set), 0)
}

// appendTo writes at the end atomically; done is false if the file system cannot.
func appendTo(fd int, p []byte) (n int, done bool, err error) {
	n, err = unix.Pwritev2(fd, [][]byte{p}, 0, unix.RWF_APPEND)
	return max(0, n), !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS), err
}

func allocate(fd int, off, length int64, flags AllocFlag) error {
	return unix.Fallocate(fd, uint32(flags), off, length)
}

// lseek(2).
const (
	seekData = 3
	seekHole = 4
)

func copyRange(from, to int, srcOff, dstOff, length int64) (int64, error) {
	n, err := unix.CopyFileRange(from, &srcOff, to, &dstOff, int(min(length, dirCopy)), 0)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		err = EOPNOTSUPP // a file system that cannot; offsets and lengths are checked above
	}
	return int64(max(0, n)), err
}

// linkOpen gives an open file without a name this one.
func (at dirAt) linkOpen(fd int) error {
	return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), at.fd, at.base, unix.AT_SYMLINK_FOLLOW)
}

// tmpFile makes a file without a name in the directory at.
func (at dirAt) tmpFile(perm Mode) (int, error) {
	fd, err := openat(at.fd, at.base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, err
	}
	defer closeFD(fd)
	return openat(fd, ".", unix.O_TMPFILE|unix.O_RDWR, uint32(perm))
}

// mknod makes a FIFO or a socket.
func (at dirAt) mknod(kind, perm Mode) error {
	return unix.Mknodat(at.fd, at.base, uint32(kind|perm), 0)
}

// xattrPath opens the entry itself, whatever it is, and returns a path to it that nobody can change.
func (at dirAt) xattrPath() (path string, done func(), err error) {
	fd, err := openat(at.fd, at.base, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", nil, err
	}
	return "/proc/self/fd/" + strconv.Itoa(fd), func() { closeFD(fd) }, nil
}

func (at dirAt) getXattr(attr string) ([]byte, error) {
	path, done, err := at.xattrPath()
	if err != nil {
		return nil, err
	}
	defer done()
	buf := make([]byte, MaxXattrValue)
	n, err := unix.Getxattr(path, attr, buf)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

func (at dirAt) setXattr(attr string, value []byte, flags XattrFlag) error {
	path, done, err := at.xattrPath()
	if err != nil {
		return err
	}
	defer done()
	return unix.Setxattr(path, attr, value, int(flags))
}

func (at dirAt) listXattr() ([]byte, error) {
	path, done, err := at.xattrPath()
	if err != nil {
		return nil, err
	}
	defer done()
	buf := make([]byte, MaxXattrList)
	n, err := unix.Listxattr(path, buf)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

func (at dirAt) removeXattr(attr string) error {
	path, done, err := at.xattrPath()
	if err != nil {
		return err
	}
	defer done()
	return unix.Removexattr(path, attr)
}
