package vfs

import (
	"errors"
	"io"
	"io/fs"
	"iter"
	"sync"
	"time"
)

// FromFS shows any io/fs.FS to the guest, read-only: every change fails with EROFS. Symbolic links are shown if
// fsys implements [fs.ReadLinkFS]. Entries belong to the guest's root. Files that can neither seek nor be read at an offset are
// read from the start again when the guest goes backwards. Names that io/fs cannot express do not exist.
//
// What is below a symbolic link is not there, but if somebody can swap entries for links meanwhile, the guest sees what fsys
// follows them to. For a directory of the host use [ReadOnlyDir], or the FS of an os.Root, instead of os.DirFS.
func FromFS(fsys fs.FS) FS { return &readOnlyFS{inner: &goFS{fsys: fsys, started: time.Now()}} }

// goFS adapts io/fs; changes are refused by the readOnlyFS around it, and again here.
type goFS struct {
	fsys    fs.FS
	started time.Time // shown for entries without a time, as embed.FS has
}

var (
	_ FS         = (*goFS)(nil)
	_ Readlinker = (*goFS)(nil)
	_ Cacher     = (*goFS)(nil)
	_ Checker    = (*goFS)(nil)
)

// check checks a path for use with io/fs. Everything above its last element has to be a directory: fsys may be one that
// follows links, and a hostile guest names entries below a link.
func (g *goFS) check(name string) error {
	if err := CheckPath(name); err != nil {
		return err
	}
	if !fs.ValidPath(name) {
		return ENOENT
	}
	for i, c := range name {
		if c != '/' {
			continue
		}
		info, err := fs.Lstat(g.fsys, name[:i])
		switch {
		case err != nil:
			return err
		case info.Mode()&fs.ModeSymlink != 0:
			return ELOOP
		case !info.IsDir():
			return ENOTDIR
		}
	}
	return nil
}

// Check implements Checker.
func (g *goFS) Check() error {
	_, err := fs.Stat(g.fsys, ".")
	return err
}

// Cache implements Cacher: an fs.FS may be live (os.DirFS), so it is not taken to be constant.
func (g *goFS) Cache() Cache { return SharedCache() }

// Lstat implements FS.
func (g *goFS) Lstat(name string) (Attr, error) {
	if err := g.check(name); err != nil {
		return Attr{}, err
	}
	info, err := fs.Lstat(g.fsys, name)
	if err != nil {
		return Attr{}, err
	}
	return g.attr(info), nil
}

func (g *goFS) attr(info fs.FileInfo) Attr {
	t := info.ModTime()
	if t.IsZero() {
		t = g.started
	}
	size := max(0, info.Size())
	return Attr{
		Mode: ModeFrom(info.Mode()), Size: size, Blocks: (size + 511) / 512, Nlink: 1,
		Atime: t, Mtime: t, Ctime: t,
	}
}

// Open implements FS.
func (g *goFS) Open(name string, flags OpenFlag, _ Create) (File, error) {
	if flags.Changes() {
		return nil, EROFS
	}
	a, err := g.Lstat(name)
	if err != nil {
		return nil, err
	}
	if err := openable(a.Mode); err != nil {
		return nil, err
	}
	f, err := g.fsys.Open(name)
	if err != nil {
		return nil, err
	}
	return &goFile{fs: g, name: name, file: f}, nil
}

// ReadDir implements FS.
func (g *goFS) ReadDir(name string) iter.Seq2[DirEntry, error] {
	return func(yield func(DirEntry, error) bool) {
		a, err := g.Lstat(name)
		if err == nil && !a.Mode.IsDir() {
			err = ENOTDIR
		}
		var list []fs.DirEntry
		if err == nil {
			list, err = fs.ReadDir(g.fsys, name)
		}
		for _, e := range list {
			if CheckName(e.Name()) == nil && !yield(DirEntry{Name: e.Name(), Type: ModeFrom(e.Type()).Type()}, nil) {
				return
			}
		}
		if err != nil {
			yield(DirEntry{}, err)
		}
	}
}

// Mkdir implements FS.
func (g *goFS) Mkdir(string, Create) error { return EROFS }

// Unlink implements FS.
func (g *goFS) Unlink(string) error { return EROFS }

// Rmdir implements FS.
func (g *goFS) Rmdir(string) error { return EROFS }

// Rename implements FS.
func (g *goFS) Rename(string, string, RenameFlag) error { return EROFS }

// SetAttr implements FS.
func (g *goFS) SetAttr(string, SetAttr) error { return EROFS }

// Readlink implements Readlinker.
func (g *goFS) Readlink(name string) (string, error) {
	a, err := g.Lstat(name)
	if err != nil {
		return "", err
	}
	if !a.Mode.IsSymlink() {
		return "", EINVAL
	}
	return fs.ReadLink(g.fsys, name)
}

// goFile reads an fs.File at offsets, with what the file offers: ReadAt, Seek, or reading on and starting over.
type goFile struct {
	fs   *goFS
	name string

	mu   sync.Mutex // guards file and pos where the file has no ReadAt
	file fs.File
	pos  int64
}

var _ File = (*goFile)(nil)

// ReadAt implements File.
func (f *goFile) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, EINVAL
	}
	if r, ok := f.file.(io.ReaderAt); ok {
		return r.ReadAt(p, off)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.moveTo(off); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(f.file, p)
	f.pos += int64(n)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// moveTo brings the file to an offset. f.mu is held.
func (f *goFile) moveTo(off int64) error {
	if off == f.pos {
		return nil
	}
	if s, ok := f.file.(io.Seeker); ok {
		_, err := s.Seek(off, io.SeekStart)
		if err == nil {
			f.pos = off
		}
		return err
	}
	if off < f.pos {
		again, err := f.fs.fsys.Open(f.name)
		if err != nil {
			return err
		}
		f.file.Close()
		f.file, f.pos = again, 0
	}
	n, err := io.CopyN(io.Discard, f.file, off-f.pos)
	f.pos += n
	return err
}

// WriteAt implements File.
func (f *goFile) WriteAt([]byte, int64) (int, error) { return 0, EBADF }

// Stat implements File.
func (f *goFile) Stat() (Attr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := f.file.Stat()
	if err != nil {
		return Attr{}, err
	}
	return f.fs.attr(info), nil
}

// SetAttr implements File.
func (f *goFile) SetAttr(SetAttr) error { return EROFS }

// Sync implements File.
func (f *goFile) Sync() error { return nil }

// Close implements File.
func (f *goFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.file.Close()
}
