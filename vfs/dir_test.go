//go:build linux || darwin

package vfs_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"gondolin/internal/testenv"
	"gondolin/vfs"
)

func TestDirCheck(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		filepath.Join(dir, "missing"): fs.ErrNotExist, file: unix.ENOTDIR, "": nil,
	} {
		checker, ok := vfs.Dir(path).(vfs.Checker)
		if !ok {
			t.Fatal("Dir has no Check")
		}
		err := checker.Check()
		if err == nil || want != nil && !errors.Is(err, want) || !strings.HasPrefix(err.Error(), "cannot use directory ") {
			t.Errorf("Check of %q: %v", path, err)
		}
		if _, err := vfs.Dir(path).Lstat("."); err == nil {
			t.Errorf("Lstat in %q succeeded", path)
		}
	}
	if err := vfs.NewDir(vfs.DirConfig{Path: dir}).Check(); err != nil {
		t.Error(err)
	}
}

// TestDirConfined tries to leave the directory through links in every position.
func TestDirConfined(t *testing.T) {
	outside, inside := t.TempDir(), t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"abs": secret, "rel": "../" + filepath.Base(outside) + "/secret", "dir": outside} {
		if err := os.Symlink(target, filepath.Join(inside, name)); err != nil {
			t.Fatal(err)
		}
	}
	d := vfs.NewDir(vfs.DirConfig{Path: inside})
	for _, name := range []string{"abs", "rel", "dir/secret", "dir", "../" + filepath.Base(outside) + "/secret"} {
		for _, flags := range []vfs.OpenFlag{0, vfs.Write, vfs.Write | vfs.CreateFile, vfs.Write | vfs.Trunc} {
			if f, err := d.Open(name, flags, vfs.Create{Perm: 0o644}); err == nil {
				f.Close()
				t.Errorf("opened %q with %b", name, flags)
			}
		}
		for what, err := range map[string]error{
			"chmod":    d.SetAttr(name, vfs.SetAttr{Mask: vfs.SetMode, Mode: 0o600}),
			"truncate": d.SetAttr(name, vfs.SetAttr{Mask: vfs.SetSize}),
		} {
			if err == nil {
				t.Errorf("%s of %q succeeded", what, name)
			}
		}
	}
	for what, err := range map[string]error{
		"mkdir": d.Mkdir("dir/new", vfs.Create{Perm: 0o755}), "unlink": d.Unlink("dir/secret"), "link": d.Link("dir/secret", "x"),
		"rename out": d.Rename("abs", "dir/x", 0), "symlink": d.Symlink("x", "dir/x", vfs.Create{}),
	} {
		if err == nil {
			t.Errorf("%s through a link succeeded", what)
		}
	}
	for _, err := range d.ReadDir("dir") {
		if err == nil {
			t.Error("listed a directory through a link")
		}
	}
	if b, err := os.ReadFile(secret); err != nil || string(b) != "secret" {
		t.Errorf("the file outside: %q %v", b, err)
	}
	if st, err := os.Stat(secret); err != nil || st.Mode() != 0o644 {
		t.Errorf("the file outside: %v %v", st, err)
	}
}

// TestDirSwap races lookups with a directory that is swapped for a link to the outside.
func TestDirSwap(t *testing.T) {
	outside, inside := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "f"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"a", "a/b"} {
		if err := os.Mkdir(filepath.Join(inside, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(inside, "a/b/f"), []byte("ours"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(inside, "a/out")); err != nil {
		t.Fatal(err)
	}
	d := vfs.NewDir(vfs.DirConfig{Path: inside})
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				d.Rename("a/b", "a/tmp", 0)
				d.Rename("a/out", "a/b", 0)
				d.Rename("a/b", "a/out", 0)
				d.Rename("a/tmp", "a/b", 0)
			}
		}
	})
	opened := 0
	for range 5000 {
		f, err := d.Open("a/b/f", 0, vfs.Create{})
		if err != nil {
			continue
		}
		opened++
		buf := make([]byte, 10)
		n, _ := f.ReadAt(buf, 0)
		f.Close()
		if string(buf[:n]) != "ours" {
			t.Fatalf("read %q from outside", buf[:n])
		}
	}
	close(stop)
	wg.Wait()
	if opened == 0 {
		t.Error("the race never let an open through: nothing was tested")
	}
}

// TestDirSpecial checks that FIFOs, sockets and devices are seen and never opened.
func TestDirSpecial(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := vfs.NewDir(vfs.DirConfig{Path: dir})
	for name, kind := range map[string]vfs.Mode{"fifo": vfs.ModeFIFO, "sock": vfs.ModeSocket} {
		a, err := d.Lstat(name)
		if err != nil || a.Mode.Type() != kind {
			t.Errorf("%s: mode %o, %v", name, a.Mode, err)
		}
		for _, flags := range []vfs.OpenFlag{0, vfs.Write, vfs.Write | vfs.CreateFile, vfs.Write | vfs.Trunc} {
			if f, err := d.Open(name, flags, vfs.Create{}); vfs.ErrnoOf(err) != vfs.EPERM {
				if err == nil {
					f.Close()
				}
				t.Errorf("open %s with %b: %v", name, flags, err)
			}
		}
		if err := d.SetAttr(name, vfs.SetAttr{Mask: vfs.SetSize}); vfs.ErrnoOf(err) != vfs.EPERM {
			t.Errorf("truncate %s: %v", name, err)
		}
	}
	if err := d.Unlink("fifo"); err != nil {
		t.Error(err)
	}
}

// TestDirOwners checks the mapping of owners and what cannot be set.
func TestDirOwners(t *testing.T) {
	dir := t.TempDir()
	d := vfs.NewDir(vfs.DirConfig{Path: dir, UID: 1000, GID: 1001})
	f, err := d.Open("f", vfs.Write|vfs.CreateFile, vfs.Create{Perm: 0o600, UID: 77, GID: 88})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, err := f.Stat()
	if err != nil || a.UID != 1000 || a.GID != 1001 {
		t.Errorf("owner %d:%d, %v", a.UID, a.GID, err)
	}
	if err := f.SetAttr(vfs.SetAttr{Mask: vfs.SetUID, UID: 1000}); err != nil {
		t.Errorf("chown to the same owner: %v", err)
	}
	for what, set := range map[string]vfs.SetAttr{
		"chown": {Mask: vfs.SetUID, UID: 0}, "chgrp": {Mask: vfs.SetGID, GID: 0},
		"setuid": {Mask: vfs.SetMode, Mode: 0o4755}, "setgid": {Mask: vfs.SetMode, Mode: 0o2755},
	} {
		if err := f.SetAttr(set); vfs.ErrnoOf(err) != vfs.EPERM {
			t.Errorf("%s through the handle: %v", what, err)
		}
		if err := d.SetAttr("f", set); vfs.ErrnoOf(err) != vfs.EPERM {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := d.Open("g", vfs.Write|vfs.CreateFile, vfs.Create{Perm: 0o4755}); vfs.ErrnoOf(err) != vfs.EPERM {
		t.Errorf("creating a set-user-ID file: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "g")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refused file exists: %v", err)
	}
	testenv.NeedsRoot(t)
	if err := os.Chown(filepath.Join(dir, "f"), 4242, 4243); err != nil {
		t.Fatal(err)
	}
	if a, err := d.Lstat("f"); err != nil || a.UID != 65534 || a.GID != 65534 {
		t.Errorf("a foreign owner appears as %d:%d, %v", a.UID, a.GID, err)
	}
}

// TestDirUmask checks that the host's umask does not change what the guest asked for.
func TestDirUmask(t *testing.T) {
	dir := t.TempDir()
	d := vfs.NewDir(vfs.DirConfig{Path: dir})
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	f, err := d.Open("f", vfs.Write|vfs.CreateFile, vfs.Create{Perm: 0o666})
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := d.Mkdir("d", vfs.Create{Perm: 0o777}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]vfs.Mode{"f": vfs.ModeRegular | 0o666, "d": vfs.ModeDir | 0o777} {
		if a, err := d.Lstat(name); err != nil || a.Mode != want {
			t.Errorf("%s: mode %o, %v", name, a.Mode, err)
		}
	}
}
