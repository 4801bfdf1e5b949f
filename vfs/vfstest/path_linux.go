package vfstest

import (
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gondolin/vfs"
)

// RunPath makes the assertions of Run with ordinary system calls, each test in a new directory below dir.
func RunPath(t *testing.T, dir string, opts Options) {
	t.Helper()
	old := unix.Umask(0) // the suite asks for exact modes
	t.Cleanup(func() { unix.Umask(old) })
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			sub, err := os.MkdirTemp(dir, "vfstest-") //nolint:usetesting // in the directory under test
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := os.RemoveAll(sub); err != nil {
					t.Errorf("cannot clean up: %v", err)
				}
			})
			c.run(&env{T: t, fs: pathFS(sub), opts: opts})
		})
	}
}

// RunPathReadOnly makes the assertions of RunReadOnly with ordinary system calls in dir, which shows Fixture.
func RunPathReadOnly(t *testing.T, dir string) {
	t.Helper()
	for _, c := range readOnlyCases {
		t.Run(c.name, func(t *testing.T) { c.run(&env{T: t, fs: pathFS(dir)}) })
	}
}

// pathFS is a directory through plain system calls, with nothing of vfs.Dir's care: what is under test is the mount.
type pathFS string

func (p pathFS) path(name string) string { return string(p) + "/" + name }

func attrOf(st *unix.Stat_t) vfs.Attr {
	return vfs.Attr{
		Mode: vfs.Mode(st.Mode), Size: st.Size, Blocks: st.Blocks, Nlink: uint32(st.Nlink), UID: st.Uid, GID: st.Gid, //nolint:gosec // small
		Dev: st.Dev, Ino: st.Ino, Atime: unixTime(st.Atim), Mtime: unixTime(st.Mtim), Ctime: unixTime(st.Ctim),
	}
}

// Lstat implements vfs.FS.
func (p pathFS) Lstat(name string) (vfs.Attr, error) {
	var st unix.Stat_t
	err := unix.Lstat(p.path(name), &st)
	return attrOf(&st), err
}

// Open implements vfs.FS. Writing handles are two descriptors: one of them appends.
func (p pathFS) Open(name string, flags vfs.OpenFlag, create vfs.Create) (vfs.File, error) {
	mode := os.O_RDONLY
	if flags&vfs.Write != 0 {
		mode = os.O_RDWR
	}
	for bit, f := range map[vfs.OpenFlag]int{vfs.CreateFile: os.O_CREATE, vfs.Excl: os.O_EXCL, vfs.Trunc: os.O_TRUNC} {
		if flags&bit != 0 {
			mode |= f
		}
	}
	fd, err := unix.Open(p.path(name), mode|unix.O_CLOEXEC, uint32(create.Perm))
	if err != nil {
		return nil, err
	}
	f := &pathFile{f: os.NewFile(uintptr(fd), name)}
	if flags&vfs.Write == 0 {
		return f, nil
	}
	f.appender, err = os.OpenFile(p.path(name), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		f.f.Close()
		return nil, err
	}
	return f, nil
}

// ReadDir implements vfs.FS.
func (p pathFS) ReadDir(name string) iter.Seq2[vfs.DirEntry, error] {
	return func(yield func(vfs.DirEntry, error) bool) {
		d, err := os.Open(p.path(name))
		if err != nil {
			yield(vfs.DirEntry{}, err)
			return
		}
		defer d.Close()
		for {
			list, err := d.ReadDir(100)
			for _, e := range list {
				if !yield(vfs.DirEntry{Name: e.Name(), Type: vfs.ModeFrom(e.Type()).Type()}, nil) {
					return
				}
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(vfs.DirEntry{}, err)
				return
			}
		}
	}
}

// Mkdir implements vfs.FS.
func (p pathFS) Mkdir(name string, create vfs.Create) error {
	return unix.Mkdir(p.path(name), uint32(create.Perm))
}

// Unlink implements vfs.FS.
func (p pathFS) Unlink(name string) error { return unix.Unlink(p.path(name)) }

// Rmdir implements vfs.FS.
func (p pathFS) Rmdir(name string) error { return unix.Rmdir(p.path(name)) }

// Rename implements vfs.FS.
func (p pathFS) Rename(from, to string, flags vfs.RenameFlag) error {
	if flags == 0 {
		return unix.Rename(p.path(from), p.path(to))
	}
	return unix.Renameat2(unix.AT_FDCWD, p.path(from), unix.AT_FDCWD, p.path(to), uint(flags))
}

// SetAttr implements vfs.FS.
func (p pathFS) SetAttr(name string, set vfs.SetAttr) error {
	path := p.path(name)
	if set.Has(vfs.SetSize) {
		if err := unix.Truncate(path, set.Size); err != nil {
			return err
		}
	}
	if set.Has(vfs.SetMode) {
		if err := unix.Chmod(path, uint32(set.Mode)); err != nil {
			return err
		}
	}
	if set.Mask&(vfs.SetUID|vfs.SetGID) != 0 {
		if err := unix.Lchown(path, chosen(set, vfs.SetUID, set.UID), chosen(set, vfs.SetGID, set.GID)); err != nil {
			return err
		}
	}
	if set.Mask&(vfs.SetAtime|vfs.SetMtime) != 0 {
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, timespecs(set), unix.AT_SYMLINK_NOFOLLOW)
	}
	return nil
}

// chosen is an id for chown(2), where -1 leaves it.
func chosen(set vfs.SetAttr, mask vfs.SetMask, id uint32) int {
	if !set.Has(mask) {
		return -1
	}
	return int(id)
}

func timespecs(set vfs.SetAttr) []unix.Timespec {
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	if set.Has(vfs.SetAtime) {
		ts[0] = unix.Timespec{Sec: set.Atime.Unix(), Nsec: int64(set.Atime.Nanosecond())}
	}
	if set.Has(vfs.SetMtime) {
		ts[1] = unix.Timespec{Sec: set.Mtime.Unix(), Nsec: int64(set.Mtime.Nanosecond())}
	}
	return ts
}

// Link implements vfs.Linker.
func (p pathFS) Link(from, to string) error { return unix.Link(p.path(from), p.path(to)) }

// Symlink implements vfs.Symlinker.
func (p pathFS) Symlink(target, name string, _ vfs.Create) error {
	return unix.Symlink(target, p.path(name))
}

// Readlink implements vfs.Readlinker.
func (p pathFS) Readlink(name string) (string, error) { return os.Readlink(p.path(name)) }

// StatFS implements vfs.StatFSer.
func (p pathFS) StatFS() (vfs.StatFS, error) {
	var st unix.Statfs_t
	err := unix.Statfs(filepath.Clean(string(p)), &st)
	return vfs.StatFS{
		BlockSize: uint32(st.Bsize), Blocks: st.Blocks, Free: st.Bfree, Avail: st.Bavail, Files: st.Files, FreeFiles: st.Ffree, //nolint:gosec // a page or so
	}, err
}

// pathFile is an open descriptor, and a second one with O_APPEND for writers.
type pathFile struct {
	f        *os.File
	appender *os.File
	root     pathFS // of TmpFile
}

// ReadAt implements vfs.File.
func (p *pathFile) ReadAt(b []byte, off int64) (int, error) { return p.f.ReadAt(b, off) }

// WriteAt implements vfs.File.
func (p *pathFile) WriteAt(b []byte, off int64) (int, error) { return p.f.WriteAt(b, off) }

// Append implements vfs.Appender.
func (p *pathFile) Append(b []byte) (int, error) { return p.appender.Write(b) }

// Stat implements vfs.File.
func (p *pathFile) Stat() (vfs.Attr, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(p.f.Fd()), &st)
	return attrOf(&st), err
}

// SetAttr implements vfs.File.
func (p *pathFile) SetAttr(set vfs.SetAttr) error {
	if set.Has(vfs.SetSize) {
		if err := p.f.Truncate(set.Size); err != nil {
			return err
		}
	}
	if set.Has(vfs.SetMode) {
		if err := unix.Fchmod(int(p.f.Fd()), uint32(set.Mode)); err != nil {
			return err
		}
	}
	if set.Mask&(vfs.SetAtime|vfs.SetMtime) != 0 {
		return unix.UtimesNanoAt(int(p.f.Fd()), "", timespecs(set), unix.AT_EMPTY_PATH)
	}
	return nil
}

// Sync implements vfs.File.
func (p *pathFile) Sync() error { return p.f.Sync() }

// Close implements vfs.File.
func (p *pathFile) Close() error {
	if p.appender != nil {
		p.appender.Close()
	}
	return p.f.Close()
}

func unixTime(ts unix.Timespec) time.Time { return time.Unix(ts.Unix()) }
