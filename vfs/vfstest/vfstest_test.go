package vfstest_test

import (
	"io/fs"
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
