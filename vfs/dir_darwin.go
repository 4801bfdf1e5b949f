package vfs

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// openPath: Darwin has no O_PATH, so directories on the way need read permission.
const openPath = unix.O_RDONLY

// openBeneath opens a directory below root with no link in its path.
func openBeneath(root int, dir string) (int, error) { return walkBeneath(root, dir) }

// renameat is renameatx_np(2) for the flags.
func renameat(from, to dirAt, flags RenameFlag) error {
	switch flags {
	case 0:
		return unix.Renameat(from.fd, from.base, to.fd, to.base)
	case RenameNoReplace:
		return unix.RenameatxNp(from.fd, from.base, to.fd, to.base, unix.RENAME_EXCL)
	case RenameExchange:
		return unix.RenameatxNp(from.fd, from.base, to.fd, to.base, unix.RENAME_SWAP)
	}
	return EINVAL
}

// chmod sets the permission bits of an entry that is not a link.
func (at dirAt) chmod(mode Mode) error {
	return unix.Fchmodat(at.fd, at.base, uint32(mode), unix.AT_SYMLINK_NOFOLLOW)
}

// chtimes sets times through os.Root, the only way to utimensat with a directory descriptor here. If an entry is
// swapped for a link meanwhile, os.Root may set the times of another entry of the same tree, never outside it.
func (at dirAt) chtimes(name string, set SetAttr) error {
	st, err := at.stat()
	if err != nil {
		return err
	}
	if Mode(st.Mode).IsSymlink() {
		return EOPNOTSUPP
	}
	root, err := os.OpenRoot(at.dir.cfg.Path)
	if err != nil {
		return err
	}
	defer root.Close()
	var atime, mtime time.Time // zero leaves a time alone
	if set.Has(SetAtime) {
		atime = set.Atime
	}
	if set.Has(SetMtime) {
		mtime = set.Mtime
	}
	return root.Chtimes(name, atime, mtime)
}

// chtimesOpen sets times of an open file, in microseconds: Darwin has no finer call for a descriptor in x/sys.
func chtimesOpen(fd int, st *unix.Stat_t, set SetAttr) error {
	tv := []unix.Timeval{
		{Sec: st.Atim.Sec, Usec: int32(st.Atim.Nsec / 1000)},
		{Sec: st.Mtim.Sec, Usec: int32(st.Mtim.Nsec / 1000)},
	}
	if set.Has(SetAtime) {
		tv[0] = unix.Timeval{Sec: set.Atime.Unix(), Usec: int32(set.Atime.Nanosecond() / 1000)}
	}
	if set.Has(SetMtime) {
		tv[1] = unix.Timeval{Sec: set.Mtime.Unix(), Usec: int32(set.Mtime.Nanosecond() / 1000)}
	}
	return unix.Futimes(fd, tv)
}

// appendTo: Darwin has no positionless append on a descriptor without O_APPEND.
func appendTo(int, []byte) (n int, done bool, err error) { return 0, false, nil }

// allocate: Darwin's F_PREALLOCATE and F_PUNCHHOLE have other rules.
func allocate(int, int64, int64, AllocFlag) error { return EOPNOTSUPP }

// lseek(2) of Darwin, where the numbers are the other way round.
const (
	seekHole = 3
	seekData = 4
)

// copyRange: Darwin copies whole files only.
func copyRange(int, int, int64, int64, int64) (int64, error) { return 0, EOPNOTSUPP }

// linkOpen: Darwin cannot link a descriptor.
func (at dirAt) linkOpen(int) error { return ENOENT }

// tmpFile: Darwin has no O_TMPFILE.
func (at dirAt) tmpFile(Mode) (int, error) { return -1, EOPNOTSUPP }

// mknod: x/sys has no mkfifoat for Darwin, and sockets are made by binding them.
func (at dirAt) mknod(Mode, Mode) error { return EPERM }

// Extended attributes of Darwin carry meaning for the host, quarantine among them.
func (at dirAt) getXattr(string) ([]byte, error)          { return nil, EOPNOTSUPP }
func (at dirAt) setXattr(string, []byte, XattrFlag) error { return EOPNOTSUPP }
func (at dirAt) listXattr() ([]byte, error)               { return nil, nil }
func (at dirAt) removeXattr(string) error                 { return EOPNOTSUPP }
