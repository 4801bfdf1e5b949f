package vfstest

import (
	"io/fs"
	"testing"
	"testing/fstest"
	"time"

	"gondolin/vfs"
)

// fixtureTime is the modification time of every entry of Fixture.
var fixtureTime = time.Unix(1_600_000_000, 0)

// Fixture is the tree that RunReadOnly expects.
func Fixture() fs.FS {
	return fstest.MapFS{
		".":         {Mode: fs.ModeDir | 0o755, ModTime: fixtureTime},
		"file":      {Data: []byte("content\n"), Mode: 0o644, ModTime: fixtureTime},
		"tool":      {Data: []byte("#!/bin/sh\n"), Mode: 0o755, ModTime: fixtureTime},
		"empty":     {Mode: 0o600, ModTime: fixtureTime},
		"link":      {Data: []byte("file"), Mode: fs.ModeSymlink | 0o777, ModTime: fixtureTime},
		"dir":       {Mode: fs.ModeDir | 0o755, ModTime: fixtureTime},
		"dir/inner": {Data: []byte("inner"), Mode: 0o444, ModTime: fixtureTime},
	}
}

// Populate writes Fixture into a writable provider, times included.
func Populate(t *testing.T, into vfs.FS) {
	t.Helper()
	e := &env{T: t, fs: into}
	e.mkdir("dir")
	e.put("file", "content\n")
	e.put("tool", "#!/bin/sh\n")
	e.put("empty", "")
	e.put("dir/inner", "inner")
	e.ok(e.symlink("file", "link"))
	for name, mode := range map[string]vfs.Mode{"tool": 0o755, "empty": 0o600, "dir/inner": 0o444} {
		e.ok(into.SetAttr(name, vfs.SetAttr{Mask: vfs.SetMode, Mode: mode}))
	}
	for _, name := range []string{"file", "tool", "empty", "dir/inner", "dir"} {
		e.ok(into.SetAttr(name, vfs.SetAttr{Mask: vfs.SetMtime | vfs.SetAtime, Mtime: fixtureTime, Atime: fixtureTime}))
	}
}

// RunReadOnly tests a provider that cannot be written to. newFS returns one that shows Fixture.
func RunReadOnly(t *testing.T, newFS func(t *testing.T) vfs.FS) {
	t.Helper()
	for _, c := range readOnlyCases {
		t.Run(c.name, func(t *testing.T) { c.run(&env{T: t, fs: newFS(t)}) })
	}
}

var readOnlyCases = []testCase{
	{"Read", testFixture},
	{"ReadDir", testFixtureDir},
	{"Refused", testRefused},
}

func testFixture(e *env) {
	e.holds("file", "content\n")
	e.holds("empty", "")
	e.holds("dir/inner", "inner")
	for name, mode := range map[string]vfs.Mode{
		"file": vfs.ModeRegular | 0o644, "tool": vfs.ModeRegular | 0o755, "empty": vfs.ModeRegular | 0o600,
		"dir": vfs.ModeDir | 0o755, "dir/inner": vfs.ModeRegular | 0o444,
	} {
		a := e.stat(name)
		e.check(a.Mode == mode, "mode of %s is %o, want %o", name, a.Mode, mode)
		e.check(a.Mtime.Equal(fixtureTime), "mtime of %s is %v", name, a.Mtime)
	}
	e.check(e.stat("link").Mode.IsSymlink(), "mode of link is %o", e.stat("link").Mode)
	target, err := e.readlink("link")
	e.check(err == nil && target == "file", "target %q, %v", target, err)
	_, err = e.readlink("file")
	e.want(err, vfs.EINVAL)
	e.missing("nope")
	e.missing("\xff")
	_, err = e.fs.Lstat("file/x")
	e.want(err, vfs.ENOENT, vfs.ENOTDIR)
	f := e.open("file", 0)
	defer f.Close()
	buf := make([]byte, 4)
	for _, off := range []int64{3, 0, 2} { // backwards too
		n, err := f.ReadAt(buf, off)
		e.check(n == 4 && err == nil && string(buf) == "content\n"[off:off+4], "at %d: %q %v", off, buf[:n], err)
	}
	e.atEnd(f, 8)
	a, err := f.Stat()
	e.check(err == nil && a.Size == 8, "size %d, %v", a.Size, err)
}

func testFixtureDir(e *env) {
	got := e.names(".")
	for _, name := range []string{"file", "tool", "empty", "link", "dir"} {
		if _, ok := got[name]; !ok {
			e.Errorf("%q is not listed", name)
		}
	}
	e.check(len(got) == 5, "listed: %v", got)
	e.check(len(e.names("dir")) == 1, "dir lists %v", e.names("dir"))
}

func testRefused(e *env) {
	refused := func(err error) { e.Helper(); e.want(err, vfs.EROFS) }
	refused(e.openErr("file", vfs.Write))
	refused(e.openErr("file", vfs.Write|vfs.Trunc))
	refused(e.openErr("new", vfs.Write|vfs.CreateFile))
	refused(e.fs.Mkdir("new", vfs.Create{Perm: 0o755}))
	refused(e.fs.Unlink("file"))
	refused(e.fs.Rmdir("dir"))
	refused(e.rename("file", "new"))
	refused(e.fs.Rename("file", "new", vfs.RenameNoReplace))
	refused(e.fs.SetAttr("file", vfs.SetAttr{Mask: vfs.SetMode, Mode: 0o777}))
	refused(e.fs.SetAttr("file", vfs.SetAttr{Mask: vfs.SetSize}))
	refused(e.fs.SetAttr("file", vfs.SetAttr{Mask: vfs.SetMtime, Mtime: fixtureTime.Add(1)}))
	refused(e.symlink("x", "new"))
	refused(e.linker().Link("file", "new"))
	e.holds("file", "content\n")
	e.missing("new")
}
