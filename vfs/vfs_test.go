package vfs_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"gondolin/vfs"
)

func TestErrnoOf(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want vfs.Errno
	}{
		{nil, 0},
		{vfs.ENOTEMPTY, 39},
		{fmt.Errorf("cannot x: %w", vfs.EXDEV), 18},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.ENAMETOOLONG}, 36},
		{&os.LinkError{Op: "rename", Err: syscall.ENOTEMPTY}, 39},
		{os.NewSyscallError("x", syscall.ELOOP), 40},
		{errors.Join(errors.New("x"), syscall.EDQUOT), 122},
		{fs.ErrNotExist, vfs.ENOENT},
		{fmt.Errorf("wrapped: %w", fs.ErrExist), vfs.EEXIST},
		{fs.ErrPermission, vfs.EACCES},
		{fs.ErrClosed, vfs.EBADF},
		{context.Canceled, vfs.EINTR},
		{context.DeadlineExceeded, vfs.EINTR},
		{errors.ErrUnsupported, vfs.EOPNOTSUPP},
		{errors.New("no such file or directory"), vfs.EIO},
		{vfs.Errno(0), vfs.EIO},
		{vfs.Errno(512), vfs.EIO},
		{syscall.Errno(9999), vfs.EIO},
	} {
		if got := vfs.ErrnoOf(tc.err); got != tc.want {
			t.Errorf("ErrnoOf(%v) = %d, want %d", tc.err, got, tc.want)
		}
	}
	if !errors.Is(vfs.ENOENT, fs.ErrNotExist) || !errors.Is(vfs.EPERM, fs.ErrPermission) || errors.Is(vfs.EIO, fs.ErrNotExist) {
		t.Error("errors.Is disagrees with io/fs")
	}
}

func TestModes(t *testing.T) {
	for linux, golang := range map[vfs.Mode]fs.FileMode{
		vfs.ModeRegular | 0o644:                  0o644,
		vfs.ModeDir | 0o1777:                     fs.ModeDir | fs.ModeSticky | 0o777,
		vfs.ModeSymlink | 0o777:                  fs.ModeSymlink | 0o777,
		vfs.ModeChar | 0o600:                     fs.ModeDevice | fs.ModeCharDevice | 0o600,
		vfs.ModeBlock | 0o600:                    fs.ModeDevice | 0o600,
		vfs.ModeSocket:                           fs.ModeSocket,
		vfs.ModeFIFO | 0o640:                     fs.ModeNamedPipe | 0o640,
		vfs.ModeRegular | vfs.ModeSetUID | 0o755: fs.ModeSetuid | 0o755,
		vfs.ModeRegular | vfs.ModeSetGID | 0o755: fs.ModeSetgid | 0o755,
	} {
		if got := linux.FileMode(); got != golang {
			t.Errorf("%o.FileMode() = %v, want %v", linux, got, golang)
		}
		if got := vfs.ModeFrom(golang); got != linux {
			t.Errorf("ModeFrom(%v) = %o, want %o", golang, got, linux)
		}
	}
}

func TestMemoryQuota(t *testing.T) {
	m := vfs.NewMemory(vfs.MemoryConfig{MaxBytes: 64 << 10, MaxInodes: 4})
	f, err := m.Open("f", vfs.Write|vfs.CreateFile, vfs.Create{Perm: 0o644})
	if err != nil {
		t.Fatal(err)
	}
	full, _ := m.StatFS()
	if _, err := f.WriteAt(make([]byte, 128<<10), 0); vfs.ErrnoOf(err) != vfs.ENOSPC {
		t.Errorf("writing 128 KiB into 64: %v", err)
	}
	for i := range 15 {
		if _, err := f.WriteAt([]byte("x"), int64(i)<<40); err != nil {
			t.Fatalf("sparse write %d: %v", i, err)
		}
	}
	if _, err := f.WriteAt([]byte("x"), 1<<50); vfs.ErrnoOf(err) != vfs.ENOSPC {
		t.Errorf("the 16th page beside the names: %v", err)
	}
	if err := f.SetAttr(vfs.SetAttr{Mask: vfs.SetSize, Size: 1 << 62}); err != nil {
		t.Errorf("a hole of 2^62: %v", err)
	}
	if err := f.SetAttr(vfs.SetAttr{Mask: vfs.SetSize, Size: 1<<62 + 1}); vfs.ErrnoOf(err) != vfs.EFBIG {
		t.Errorf("beyond 2^62: %v", err)
	}
	// An unlinked file gives its storage back when it is closed, not before.
	if err := m.Unlink("f"); err != nil {
		t.Fatal(err)
	}
	if held, _ := m.StatFS(); held.Free >= full.Free {
		t.Errorf("%d blocks free while the file is open", held.Free)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if after, _ := m.StatFS(); after.Free < full.Free || after.FreeFiles != 3 {
		t.Errorf("free after close: %+v", after)
	}
	for i := range 3 {
		if err := m.Mkdir(fmt.Sprint(i), vfs.Create{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Mkdir("3", vfs.Create{}); vfs.ErrnoOf(err) != vfs.ENOSPC {
		t.Errorf("the fifth inode: %v", err)
	}
	if err := m.Symlink("t", "4", vfs.Create{}); vfs.ErrnoOf(err) != vfs.ENOSPC {
		t.Errorf("a link beyond the quota: %v", err)
	}
}

func TestMemoryOwners(t *testing.T) {
	m := vfs.NewMemory(vfs.MemoryConfig{})
	if err := m.Mkdir("d", vfs.Create{Perm: 0o2775, UID: 1, GID: 2}); err != nil {
		t.Fatal(err)
	}
	if err := m.Mkdir("d/e", vfs.Create{Perm: 0o755, UID: 3, GID: 4}); err != nil {
		t.Fatal(err)
	}
	a, err := m.Lstat("d/e")
	if err != nil || a.UID != 3 || a.GID != 2 || a.Mode&vfs.ModeSetGID == 0 {
		t.Errorf("below a set-group-ID directory: %+v, %v", a, err)
	}
}
