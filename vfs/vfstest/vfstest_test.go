package vfstest_test

import (
	"io/fs"
	"iter"
	"os"
	"runtime"
	"testing"

	"gondolin/vfs"
	"gondolin/vfs/vfstest"
)

// hostOptions are what a directory of this host cannot do.
func hostOptions() vfstest.Options {
	darwin := runtime.GOOS == "darwin"
	return vfstest.Options{FixedOwner: true, NoSpecialBits: true, NoLinkTimes: darwin}
}

func TestMemory(t *testing.T) {
	vfstest.Run(t, func(*testing.T) vfs.FS { return vfs.Memory() }, vfstest.Options{})
}

func TestDir(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) vfs.FS { return vfs.Dir(t.TempDir()) }, hostOptions())
}

func TestMountBase(t *testing.T) {
	vfstest.Run(t, func(*testing.T) vfs.FS { return vfs.Mount(vfs.Memory(), nil) }, vfstest.Options{})
}

func TestMountDir(t *testing.T) {
	vfstest.Run(t, func(t *testing.T) vfs.FS { return vfs.Mount(vfs.Dir(t.TempDir()), nil) }, hostOptions())
}

func TestReadOnlyMount(t *testing.T) {
	vfstest.RunReadOnly(t, func(*testing.T) vfs.FS { return vfs.Mount(vfs.FromFS(vfstest.Fixture()), nil) })
}

// below is a mount point seen as a file system of its own: what a guest does in one goes through all of Mount.
type below struct{ vfs.FS }

func inMount(name string) string {
	if name == "." {
		return "a/b"
	}
	return "a/b/" + name
}

func (b below) Lstat(name string) (vfs.Attr, error)        { return b.FS.Lstat(inMount(name)) }
func (b below) Mkdir(name string, c vfs.Create) error      { return b.FS.Mkdir(inMount(name), c) }
func (b below) Unlink(name string) error                   { return b.FS.Unlink(inMount(name)) }
func (b below) Rmdir(name string) error                    { return b.FS.Rmdir(inMount(name)) }
func (b below) SetAttr(name string, set vfs.SetAttr) error { return b.FS.SetAttr(inMount(name), set) }

func (b below) ReadDir(name string) iter.Seq2[vfs.DirEntry, error] {
	return b.FS.ReadDir(inMount(name))
}

func (b below) Open(name string, f vfs.OpenFlag, c vfs.Create) (vfs.File, error) {
	return b.FS.Open(inMount(name), f, c)
}

func (b below) Rename(from, to string, f vfs.RenameFlag) error {
	return b.FS.Rename(inMount(from), inMount(to), f)
}

func (b below) Link(from, to string) error {
	return b.FS.(vfs.Linker).Link(inMount(from), inMount(to)) //nolint:forcetypeassert // Mount has it
}

func (b below) Symlink(target, name string, c vfs.Create) error {
	return b.FS.(vfs.Symlinker).Symlink(target, inMount(name), c) //nolint:forcetypeassert // Mount has it
}

func (b below) Readlink(name string) (string, error) {
	return b.FS.(vfs.Readlinker).Readlink(inMount(name)) //nolint:forcetypeassert // Mount has it
}

func TestMountPoint(t *testing.T) {
	vfstest.Run(t, func(*testing.T) vfs.FS {
		return below{vfs.Mount(vfs.FromFS(vfstest.Fixture()), map[string]vfs.FS{"a/b": vfs.Memory()})}
	}, vfstest.Options{})
}

func TestReadOnlyMemory(t *testing.T) {
	vfstest.RunReadOnly(t, func(t *testing.T) vfs.FS {
		m := vfs.Memory()
		vfstest.Populate(t, m)
		return vfs.ReadOnly(m)
	})
}

func TestReadOnlyDir(t *testing.T) {
	vfstest.RunReadOnly(t, func(t *testing.T) vfs.FS {
		dir := t.TempDir()
		vfstest.Populate(t, vfs.Dir(dir))
		return vfs.ReadOnlyDir(dir)
	})
}

func TestFromFS(t *testing.T) {
	vfstest.RunReadOnly(t, func(*testing.T) vfs.FS { return vfs.FromFS(vfstest.Fixture()) })
}

func TestFromOSDir(t *testing.T) {
	vfstest.RunReadOnly(t, func(t *testing.T) vfs.FS {
		dir := t.TempDir()
		vfstest.Populate(t, vfs.Dir(dir))
		return vfs.FromFS(os.DirFS(dir))
	})
}

// streamFS hides all but the required methods of its files, as an archive's reader does.
type streamFS struct{ fs.ReadLinkFS }

type streamFile struct{ inner fs.File }

func (s streamFS) Open(name string) (fs.File, error) {
	f, err := s.ReadLinkFS.Open(name)
	if err != nil {
		return nil, err
	}
	if _, dir := f.(fs.ReadDirFile); dir {
		return f, nil
	}
	return &streamFile{f}, nil
}

func (s *streamFile) Stat() (fs.FileInfo, error) { return s.inner.Stat() }
func (s *streamFile) Read(p []byte) (int, error) { return s.inner.Read(p) }
func (s *streamFile) Close() error               { return s.inner.Close() }

func TestFromStream(t *testing.T) {
	fixture, ok := vfstest.Fixture().(fs.ReadLinkFS)
	if !ok {
		t.Fatal("the fixture cannot read links")
	}
	vfstest.RunReadOnly(t, func(*testing.T) vfs.FS { return vfs.FromFS(streamFS{fixture}) })
}
