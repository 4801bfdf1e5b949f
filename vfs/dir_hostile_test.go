//go:build linux || darwin

package vfs_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"gondolin/vfs"
)

// TestDirSetIDCleared opens a set-user-ID file for writing: its content is the guest's from then on.
func TestDirSetIDCleared(t *testing.T) {
	dir := t.TempDir()
	tool := filepath.Join(dir, "tool")
	set := func() {
		t.Helper()
		if err := os.WriteFile(tool, []byte("ours"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Chmod(tool, 0o6755); err != nil {
			t.Fatal(err)
		}
	}
	mode := func() os.FileMode {
		t.Helper()
		st, err := os.Stat(tool)
		if err != nil {
			t.Fatal(err)
		}
		return st.Mode()
	}
	d := vfs.NewDir(vfs.DirConfig{Path: dir})
	defer d.Close()
	for _, flags := range []vfs.OpenFlag{vfs.Write, vfs.Write | vfs.Trunc, vfs.Write | vfs.CreateFile} {
		set()
		f, err := d.Open("tool", flags, vfs.Create{Perm: 0o755})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("guest"), 0); err != nil {
			t.Error(err)
		}
		if got := mode(); got != 0o755 {
			t.Errorf("opened with %b and written: mode %v", flags, got)
		}
		if err := f.SetAttr(vfs.SetAttr{Mask: vfs.SetMode, Mode: 0o4755}); vfs.ErrnoOf(err) != vfs.EPERM {
			t.Errorf("setting the bit again: %v", err)
		}
		f.Close()
	}
	set()
	if err := d.SetAttr("tool", vfs.SetAttr{Mask: vfs.SetSize}); err != nil || mode() != 0o755 {
		t.Errorf("truncated: mode %v, %v", mode(), err)
	}
	set()
	f, err := d.Open("tool", 0, vfs.Create{})
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := d.SetAttr("tool", vfs.SetAttr{Mask: vfs.SetMode, Mode: 0o6711}); err != nil {
		t.Errorf("keeping the bits: %v", err)
	}
	if got := mode(); got != os.ModeSetuid|os.ModeSetgid|0o711 {
		t.Errorf("read and kept: mode %v", got)
	}
	if err := d.SetAttr("tool", vfs.SetAttr{Mask: vfs.SetMode, Mode: 0o711}); err != nil || mode() != 0o711 {
		t.Errorf("clearing the bits: mode %v, %v", mode(), err)
	}
}

// TestDirSetIDRace swaps the file whose bits may be kept with one of the guest's while its mode is set.
func TestDirSetIDRace(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]uint32{"tool": 0o4755, "evil": 0o755} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	evil, err := os.Open(filepath.Join(dir, "evil"))
	if err != nil {
		t.Fatal(err)
	}
	defer evil.Close()
	d := vfs.NewDir(vfs.DirConfig{Path: dir})
	defer d.Close()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if err := d.Rename("tool", "evil", vfs.RenameExchange); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	kept, refused := 0, 0
	for i := 0; i < 5000 || (kept == 0 || refused == 0) && i < 500_000; i++ {
		switch err := d.SetAttr("tool", vfs.SetAttr{Mask: vfs.SetMode, Mode: 0o4755}); vfs.ErrnoOf(err) {
		case 0:
			kept++
		case vfs.EPERM:
			refused++
		default:
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	if st, err := evil.Stat(); err != nil || st.Mode() != 0o755 {
		t.Errorf("the guest's file has mode %v, %v", st.Mode(), err)
	}
	if kept == 0 || refused == 0 {
		t.Errorf("the race never happened: %d kept, %d refused", kept, refused)
	}
}

// TestDirInheritedSetGID makes directories below one whose set-group-ID bit they inherit, and with modes that leave their
// owner nothing.
func TestDirInheritedSetGID(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Chmod(dir, 0o2755); err != nil {
		t.Fatal(err)
	}
	d := vfs.NewDir(vfs.DirConfig{Path: dir})
	defer d.Close()
	for name, perm := range map[string]vfs.Mode{"a": 0o777, "b": 0, "c": 0o077} {
		if err := d.Mkdir(name, vfs.Create{Perm: perm}); err != nil {
			t.Fatal(err)
		}
		a, err := d.Lstat(name)
		if err != nil || a.Mode&^vfs.ModeSetGID != vfs.ModeDir|perm {
			t.Errorf("mode %o, want %o; %v", a.Mode, perm, err)
		}
	}
}

// TestFromFSConfined names entries below a link of an fs.FS that follows links.
func TestFromFSConfined(t *testing.T) {
	inside, outside := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(inside, "out")); err != nil {
		t.Fatal(err)
	}
	f := vfs.FromFS(os.DirFS(inside))
	if a, err := f.Lstat("out"); err != nil || !a.Mode.IsSymlink() {
		t.Errorf("the link: %+v, %v", a, err)
	}
	if _, err := f.Lstat("out/secret"); vfs.ErrnoOf(err) != vfs.ELOOP {
		t.Errorf("lstat below the link: %v", err)
	}
	if file, err := f.Open("out/secret", 0, vfs.Create{}); vfs.ErrnoOf(err) != vfs.ELOOP {
		t.Errorf("open below the link: %v", err)
		if err == nil {
			file.Close()
		}
	}
	for _, err := range f.ReadDir("out") {
		if err == nil {
			t.Error("listed through the link")
		}
	}
}
