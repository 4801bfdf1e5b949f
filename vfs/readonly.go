package vfs

import (
	"io"
	"iter"
)

// ReadOnly returns a view of an FS in which every change fails with EROFS. Others may still change the tree beneath.
func ReadOnly(inner FS) FS { return &readOnlyFS{inner: inner} }

type readOnlyFS struct{ inner FS }

var (
	_ FS         = (*readOnlyFS)(nil)
	_ Linker     = (*readOnlyFS)(nil)
	_ Symlinker  = (*readOnlyFS)(nil)
	_ Readlinker = (*readOnlyFS)(nil)
	_ StatFSer   = (*readOnlyFS)(nil)
	_ Cacher     = (*readOnlyFS)(nil)
	_ Checker    = (*readOnlyFS)(nil)
	_ io.Closer  = (*readOnlyFS)(nil)
)

// Lstat implements FS.
func (r *readOnlyFS) Lstat(name string) (Attr, error) { return r.inner.Lstat(name) }

// Open implements FS.
func (r *readOnlyFS) Open(name string, flags OpenFlag, _ Create) (File, error) {
	if flags.Changes() {
		return nil, EROFS
	}
	f, err := r.inner.Open(name, 0, Create{})
	if err != nil {
		return nil, err
	}
	return readOnlyFile{f}, nil
}

// ReadDir implements FS.
func (r *readOnlyFS) ReadDir(name string) iter.Seq2[DirEntry, error] { return r.inner.ReadDir(name) }

// Mkdir implements FS.
func (r *readOnlyFS) Mkdir(string, Create) error { return EROFS }

// Unlink implements FS.
func (r *readOnlyFS) Unlink(string) error { return EROFS }

// Rmdir implements FS.
func (r *readOnlyFS) Rmdir(string) error { return EROFS }

// Rename implements FS.
func (r *readOnlyFS) Rename(string, string, RenameFlag) error { return EROFS }

// SetAttr implements FS.
func (r *readOnlyFS) SetAttr(string, SetAttr) error { return EROFS }

// Link implements Linker.
func (r *readOnlyFS) Link(string, string) error { return EROFS }

// Symlink implements Symlinker.
func (r *readOnlyFS) Symlink(string, string, Create) error { return EROFS }

// Readlink implements Readlinker.
func (r *readOnlyFS) Readlink(name string) (string, error) {
	if inner, ok := r.inner.(Readlinker); ok {
		return inner.Readlink(name)
	}
	return "", EINVAL
}

// StatFS implements StatFSer.
func (r *readOnlyFS) StatFS() (StatFS, error) {
	if inner, ok := r.inner.(StatFSer); ok {
		return inner.StatFS()
	}
	return StatFS{}, nil
}

// Cache implements Cacher. A negative or page cache is no safer for being read-only: the tree may change beneath.
func (r *readOnlyFS) Cache() Cache {
	if inner, ok := r.inner.(Cacher); ok {
		return inner.Cache()
	}
	return SharedCache()
}

// Check implements Checker.
func (r *readOnlyFS) Check() error {
	if inner, ok := r.inner.(Checker); ok {
		return inner.Check()
	}
	return nil
}

// Close closes the inner FS if it can be closed.
func (r *readOnlyFS) Close() error {
	if inner, ok := r.inner.(io.Closer); ok {
		return inner.Close()
	}
	return nil
}

// readOnlyFile refuses changes through a handle.
type readOnlyFile struct{ inner File }

var _ File = readOnlyFile{}

// ReadAt implements File.
func (f readOnlyFile) ReadAt(p []byte, off int64) (int, error) { return f.inner.ReadAt(p, off) }

// WriteAt implements File.
func (f readOnlyFile) WriteAt([]byte, int64) (int, error) { return 0, EBADF }

// Stat implements File.
func (f readOnlyFile) Stat() (Attr, error) { return f.inner.Stat() }

// SetAttr implements File.
func (f readOnlyFile) SetAttr(SetAttr) error { return EROFS }

// Sync implements File: what is read needs no sync.
func (f readOnlyFile) Sync() error { return nil }

// Close implements File.
func (f readOnlyFile) Close() error { return f.inner.Close() }
