//go:build linux || darwin

package vfs

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// DirConfig describes a directory of the host to show to a guest.
type DirConfig struct {
	// Path is the directory. A relative one is resolved when NewDir is called.
	Path string
	// UID and GID are what the guest sees as owner of entries that belong to the user and group of this process. If
	// zero, the guest's root. All other owners appear as 65534.
	UID, GID uint32
}

// overflowID is what an owner without a mapping appears as (fs.overflowuid of Linux).
const overflowID = 65534

// DirFS is a directory of the host, shared with it: what either side does, the other sees.
//
// It is confined: the guest cannot name anything outside, no symbolic link is followed on its behalf, however fast
// entries are swapped, and it opens regular files only, so FIFOs, sockets and devices below the directory are seen and never
// reached. Mounts of the host inside the directory are part of it.
//
// Entries are made with the host process's owner. Chown to what an entry already appears as succeeds, any other is
// EPERM, whoever runs the host process. The set-user-ID, set-group-ID and sticky bits cannot be set (EPERM); those
// already there are shown and can be kept or cleared, and a file that is opened for writing loses the first two, so
// that no guest decides what runs with the rights of another user. On Linux the guest
// can make FIFOs and sockets, which are names without content to the host, and set extended attributes of the user namespace; others
// are EOPNOTSUPP, and so are all of them on macOS. The directory stays open until Close, or until the DirFS is garbage.
type DirFS struct {
	cfg    DirConfig
	absErr error

	once sync.Once
	root *os.File
	err  error
}

var (
	_ FS         = (*DirFS)(nil)
	_ Linker     = (*DirFS)(nil)
	_ Symlinker  = (*DirFS)(nil)
	_ Readlinker = (*DirFS)(nil)
	_ StatFSer   = (*DirFS)(nil)
	_ Checker    = (*DirFS)(nil)
	_ DirSyncer  = (*DirFS)(nil)
	_ DirStater  = (*DirFS)(nil)
	_ Mknoder    = (*DirFS)(nil)
	_ TmpFiler   = (*DirFS)(nil)
	_ XattrFS    = (*DirFS)(nil)
	_ io.Closer  = (*DirFS)(nil)
)

// Dir shows a directory of the host to the guest, for reading and writing; see [DirFS]. A directory that cannot be
// used is reported by Check, and by every operation.
func Dir(path string) FS { return NewDir(DirConfig{Path: path}) }

// ReadOnlyDir shows a directory of the host to the guest, for reading only.
func ReadOnlyDir(path string) FS { return ReadOnly(Dir(path)) }

// NewDir shows a directory of the host to the guest.
func NewDir(cfg DirConfig) *DirFS {
	path, err := filepath.Abs(cfg.Path)
	if cfg.Path == "" {
		err = errors.New("the path is empty")
	}
	if err == nil {
		cfg.Path = path
	}
	return &DirFS{cfg: cfg, absErr: err}
}

// Check implements Checker.
func (d *DirFS) Check() error {
	_, err := d.rootFD()
	return err
}

// Close gives up the directory; nothing may use the DirFS at that time or after. Calling it is optional.
func (d *DirFS) Close() error {
	if _, err := d.rootFD(); err != nil {
		return nil //nolint:nilerr // it was never open
	}
	return d.root.Close()
}

// rootFD opens the directory at first use.
func (d *DirFS) rootFD() (int, error) {
	d.once.Do(d.openRoot)
	if d.err != nil {
		return -1, d.err
	}
	return int(d.root.Fd()), nil
}

func (d *DirFS) openRoot() {
	if d.absErr != nil {
		d.err = fmt.Errorf("cannot use directory %q: %w", d.cfg.Path, d.absErr)
		return
	}
	fd, err := openat(unix.AT_FDCWD, d.cfg.Path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		d.err = fmt.Errorf("cannot use directory %q: %w", d.cfg.Path, err)
		return
	}
	d.root = os.NewFile(uintptr(fd), d.cfg.Path)
}

// dirAt is an entry as the *at system calls want it: an open parent and one name.
type dirAt struct {
	dir   *DirFS // keeps the root descriptor open
	fd    int
	base  string // "." for the root
	owned bool   // fd is closed by close
}

func (at dirAt) close() {
	if at.owned {
		closeFD(at.fd)
	}
}

// at finds the parent of a path without following links.
func (d *DirFS) at(name string) (dirAt, error) {
	if err := CheckPath(name); err != nil {
		return dirAt{}, err
	}
	root, err := d.rootFD()
	if err != nil {
		return dirAt{}, err
	}
	if name == "." {
		return dirAt{dir: d, fd: root, base: "."}, nil
	}
	parent, base := splitPath(name)
	if parent == "." {
		return dirAt{dir: d, fd: root, base: base}, nil
	}
	fd, err := openBeneath(root, parent)
	if err != nil {
		return dirAt{}, err
	}
	return dirAt{dir: d, fd: fd, base: base, owned: true}, nil
}

// child is at for an entry that will be made, removed or moved: the root is EBUSY.
func (d *DirFS) child(name string) (dirAt, error) {
	if name == "." {
		return dirAt{}, EBUSY
	}
	return d.at(name)
}

// closeFD closes a descriptor that holds nothing to lose.
func closeFD(fd int) { _ = unix.Close(fd) }

// openat is openat(2) with close-on-exec, repeated when a signal interrupts it.
func openat(dir int, name string, flags int, perm uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, perm)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// walkBeneath opens a directory below root, one element at a time.
func walkBeneath(root int, dir string) (int, error) {
	fd := root
	for elem := range strings.SplitSeq(dir, "/") {
		next, err := openat(fd, elem, openPath|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
		if fd != root {
			closeFD(fd)
		}
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

// stat is fstatat without following.
func (at dirAt) stat() (unix.Stat_t, error) {
	var st unix.Stat_t
	err := unix.Fstatat(at.fd, at.base, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

// attr is what the guest sees.
func (d *DirFS) attr(st *unix.Stat_t) Attr {
	a := Attr{
		Mode: Mode(st.Mode), Size: st.Size, Blocks: st.Blocks, Nlink: uint32(st.Nlink), //nolint:gosec // the kernel keeps it below 2^32
		UID: overflowID, GID: overflowID, Dev: uint64(st.Dev), Ino: st.Ino, Rdev: encodeDev(uint64(st.Rdev)), //nolint:unconvert // int32 on macOS
		Atime: time.Unix(st.Atim.Unix()), Mtime: time.Unix(st.Mtim.Unix()), Ctime: time.Unix(st.Ctim.Unix()),
	}
	if int(st.Uid) == os.Geteuid() {
		a.UID = d.cfg.UID
	}
	if int(st.Gid) == os.Getegid() {
		a.GID = d.cfg.GID
	}
	return a
}

// encodeDev is new_encode_dev of linux/kdev_t.h.
func encodeDev(dev uint64) uint32 {
	major, minor := unix.Major(dev), unix.Minor(dev)
	return minor&0xff | major<<8 | minor&^0xff<<12
}

// Lstat implements FS.
func (d *DirFS) Lstat(name string) (Attr, error) {
	at, err := d.at(name)
	if err != nil {
		return Attr{}, err
	}
	defer at.close()
	st, err := at.stat()
	if err != nil {
		return Attr{}, err
	}
	return d.attr(&st), nil
}

// ReadDir implements FS.
func (d *DirFS) ReadDir(name string) iter.Seq2[DirEntry, error] {
	return func(yield func(DirEntry, error) bool) {
		f, err := d.openDir(name)
		if err != nil {
			yield(DirEntry{}, err)
			return
		}
		defer f.Close()
		for {
			names, err := f.Readdirnames(dirBatch)
			for _, n := range names {
				if e, ok := dirEntry(int(f.Fd()), n); ok && !yield(e, nil) {
					return
				}
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(DirEntry{}, err)
				return
			}
		}
	}
}

// dirEntry looks at one name; those removed meanwhile are left out.
func dirEntry(fd int, name string) (DirEntry, bool) {
	if CheckName(name) != nil {
		return DirEntry{}, false
	}
	st, err := dirAt{fd: fd, base: name}.stat()
	if err != nil {
		return DirEntry{Name: name}, !errors.Is(err, unix.ENOENT)
	}
	return DirEntry{Name: name, Type: Mode(st.Mode).Type(), Dev: uint64(st.Dev), Ino: st.Ino}, true //nolint:unconvert // int32 on macOS
}

func (d *DirFS) openDir(name string) (*os.File, error) {
	at, err := d.at(name)
	if err != nil {
		return nil, err
	}
	defer at.close()
	fd, err := openat(at.fd, at.base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), at.base), nil
}

// SyncDir implements DirSyncer.
func (d *DirFS) SyncDir(name string) error {
	f, err := d.openDir(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Mkdir implements FS.
func (d *DirFS) Mkdir(name string, create Create) error {
	if name == "." {
		return EEXIST
	}
	if create.Perm&ModeSpecial != 0 {
		return EPERM
	}
	at, err := d.child(name)
	if err != nil {
		return err
	}
	defer at.close()
	perm := create.Perm & ModePerm
	if err := unix.Mkdirat(at.fd, at.base, uint32(perm|0o700)); err != nil { // so that it can be opened
		return err
	}
	fd, err := openat(at.fd, at.base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || Mode(st.Mode)&ModePerm == perm {
		return err
	}
	// The host's umask is not the guest's. A set-group-ID bit that was inherited stays, on this directory and on nothing
	// that may have its name by now.
	return unix.Fchmod(fd, uint32(Mode(st.Mode)&ModeSpecial|perm))
}

// Unlink implements FS.
func (d *DirFS) Unlink(name string) error {
	at, err := d.child(name)
	if err != nil {
		return err
	}
	defer at.close()
	err = unix.Unlinkat(at.fd, at.base, 0)
	if errors.Is(err, unix.EPERM) { // what Darwin and POSIX say for a directory
		if st, statErr := at.stat(); statErr == nil && Mode(st.Mode).IsDir() {
			return EISDIR
		}
	}
	return err
}

// Rmdir implements FS.
func (d *DirFS) Rmdir(name string) error {
	at, err := d.child(name)
	if err != nil {
		return err
	}
	defer at.close()
	return unix.Unlinkat(at.fd, at.base, unix.AT_REMOVEDIR)
}

// Rename implements FS.
func (d *DirFS) Rename(oldName, newName string, flags RenameFlag) error {
	if flags&^(RenameNoReplace|RenameExchange) != 0 {
		return EINVAL
	}
	from, err := d.child(oldName)
	if err != nil {
		return err
	}
	defer from.close()
	to, err := d.child(newName)
	if err != nil {
		return err
	}
	defer to.close()
	return renameat(from, to, flags)
}

// Link implements Linker.
func (d *DirFS) Link(oldName, newName string) error {
	from, err := d.child(oldName)
	if err != nil {
		return err
	}
	defer from.close()
	to, err := d.child(newName)
	if err != nil {
		return err
	}
	defer to.close()
	return unix.Linkat(from.fd, from.base, to.fd, to.base, 0) // flags 0: a link itself, not what it names
}

// Symlink implements Symlinker.
func (d *DirFS) Symlink(target, newName string, _ Create) error {
	if err := checkTarget(target); err != nil {
		return err
	}
	at, err := d.child(newName)
	if err != nil {
		return err
	}
	defer at.close()
	return unix.Symlinkat(target, at.fd, at.base)
}

// Readlink implements Readlinker.
func (d *DirFS) Readlink(name string) (string, error) {
	at, err := d.at(name)
	if err != nil {
		return "", err
	}
	defer at.close()
	if at.base == "." {
		return "", EINVAL // Linux says ENOENT for an empty path and EINVAL for a directory
	}
	buf := make([]byte, MaxTarget+1)
	n, err := unix.Readlinkat(at.fd, at.base, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// StatFS implements StatFSer with the numbers of the host's file system.
func (d *DirFS) StatFS() (StatFS, error) {
	fd, err := d.rootFD()
	if err != nil {
		return StatFS{}, err
	}
	var st unix.Statfs_t
	err = unix.Fstatfs(fd, &st)
	runtime.KeepAlive(d) // or its descriptor might be closed meanwhile
	if err != nil {
		return StatFS{}, err
	}
	return StatFS{
		BlockSize: uint32(st.Bsize), Blocks: st.Blocks, Free: st.Bfree, Avail: st.Bavail, //nolint:gosec // a page or so
		Files: st.Files, FreeFiles: st.Ffree,
	}, nil
}

// SetAttr implements FS.
func (d *DirFS) SetAttr(name string, set SetAttr) error {
	at, err := d.at(name)
	if err != nil {
		return err
	}
	defer at.close()
	st, err := at.stat()
	if err != nil {
		return err
	}
	if err := d.allowed(&st, set); err != nil {
		return err
	}
	if set.Has(SetSize) {
		if err := d.truncate(name, set.Size); err != nil {
			return err
		}
	}
	if set.Has(SetMode) {
		if err := d.chmod(at, set); err != nil {
			return err
		}
	}
	if set.Mask&(SetAtime|SetMtime) != 0 {
		return at.chtimes(name, set)
	}
	return nil
}

// chmod sets the mode of an entry. One with special bits is set only on an open file that has them: what has the
// name may be another file than the one that was allowed to keep them.
func (d *DirFS) chmod(at dirAt, set SetAttr) error {
	if set.Mode&ModeSpecial == 0 {
		return at.chmod(set.Mode & ModePerm)
	}
	fd, err := openat(at.fd, at.base, openFileFlags|unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := d.allowed(&st, SetAttr{Mask: SetMode, Mode: set.Mode}); err != nil {
		return err
	}
	return unix.Fchmod(fd, uint32(set.Mode&ModeBits))
}

// allowed refuses what must not reach the host, before anything is changed.
func (d *DirFS) allowed(st *unix.Stat_t, set SetAttr) error {
	a := d.attr(st)
	switch {
	case set.Has(SetUID) && set.UID != a.UID, set.Has(SetGID) && set.GID != a.GID:
		return EPERM
	case set.Has(SetMode) && a.Mode.IsSymlink():
		return EOPNOTSUPP
	case set.Has(SetMode) && set.Mode&ModeSpecial != 0 && (set.Mode&ModeSpecial&^a.Mode != 0 || !a.Mode.IsRegular() && !a.Mode.IsDir()):
		return EPERM
	case set.Has(SetSize) && a.Mode.IsDir():
		return EISDIR
	}
	return nil
}

func (d *DirFS) truncate(name string, size int64) error {
	f, err := d.Open(name, Write, Create{})
	if err != nil {
		return err
	}
	defer f.Close()
	return f.SetAttr(SetAttr{Mask: SetSize, Size: size})
}
