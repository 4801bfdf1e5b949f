package vfs

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"
)

// Mount returns a view of base in which other file systems cover some of its paths. A path belongs to the mount with
// the longest matching prefix, so mounts nest.
//
// The keys of mounts are paths as [CheckPath] wants them, other than "."; Check reports bad ones. A mount point need not
// exist in base: it and the directories that lead to it are listed, and those that base does not have, or has as something
// other than a directory, are empty read-only directories of root. A mount point and what leads to it cannot be removed or
// renamed (EBUSY). Renames and hard links from one mount to another are EXDEV. Entries of base below a mount point are
// out of reach through their own path only: a base that has other paths to them (hard links, or names in
// another case where it folds case) still shows them there.
//
// Capacity is that of base. The guest trusts its caches as far as the least trusting of the file systems says. Closing
// these is left to whoever made them.
func Mount(base FS, mounts map[string]FS) FS {
	m := &mountFS{made: time.Now(), devs: map[mountDev]uint64{}}
	for at, fsys := range mounts {
		m.mounts = append(m.mounts, mountedFS{at: at, fs: fsys})
	}
	slices.SortFunc(m.mounts, func(a, b mountedFS) int { // longest first, then by name, so that numbers are stable
		return cmp.Or(cmp.Compare(len(b.at), len(a.at)), cmp.Compare(a.at, b.at))
	})
	m.mounts = append(m.mounts, mountedFS{at: ".", fs: base})
	return m
}

// mountFS is never changed after Mount, besides devs.
type mountFS struct {
	made   time.Time   // the times of directories that only lead to a mount point
	mounts []mountedFS // longest path first; base is the last

	mu   sync.Mutex
	devs map[mountDev]uint64 // at most mountMaxDevs; guarded by mu
}

type mountedFS struct {
	at string
	fs FS
}

// mountDev is a device number of one of the file systems, which may use the same ones.
type mountDev struct {
	mount int
	dev   uint64
}

var (
	_ FS         = (*mountFS)(nil)
	_ Linker     = (*mountFS)(nil)
	_ Symlinker  = (*mountFS)(nil)
	_ Readlinker = (*mountFS)(nil)
	_ StatFSer   = (*mountFS)(nil)
	_ Cacher     = (*mountFS)(nil)
	_ Checker    = (*mountFS)(nil)
	_ DirSyncer  = (*mountFS)(nil)
	_ File       = (*mountFile)(nil)
	_ Appender   = (*mountFile)(nil)
	_ Allocator  = (*mountFile)(nil)
)

// place is where a path leads: the number of a mount and the path within it.
type place struct {
	fs    FS
	mount int
	rel   string
}

func (m *mountFS) find(name string) (place, error) {
	if err := CheckPath(name); err != nil {
		return place{}, err
	}
	base := len(m.mounts) - 1
	for i, mount := range m.mounts[:base] {
		if name == mount.at {
			return place{mount.fs, i, "."}, nil
		}
		if rel, ok := strings.CutPrefix(name, mount.at+"/"); ok {
			return place{mount.fs, i, rel}, nil
		}
	}
	return place{m.mounts[base].fs, base, name}, nil
}

// fixed reports whether a path is a mount point or leads to one.
func (m *mountFS) fixed(name string) bool {
	return slices.ContainsFunc(m.mounts[:len(m.mounts)-1], func(mount mountedFS) bool {
		return name == "." || name == mount.at || strings.HasPrefix(mount.at, name+"/")
	})
}

// change finds an entry that is to be removed, moved or replaced.
func (m *mountFS) change(name string) (place, error) {
	p, err := m.find(name)
	if err == nil && m.fixed(name) {
		err = EBUSY
	}
	return p, err
}

// create finds the place of a new entry.
func (m *mountFS) create(name string) (place, error) {
	p, err := m.find(name)
	if err == nil && m.fixed(name) {
		err = EEXIST
	}
	return p, err
}

// found is an entry that exists.
type found struct {
	place

	attr      Attr // as its file system has it
	synthetic bool // a directory that only leads to a mount point
}

// existing finds an entry. What leads to a mount point exists whatever its file system says of it, errors included.
func (m *mountFS) existing(name string) (found, error) {
	p, err := m.find(name)
	if err != nil {
		return found{}, err
	}
	a, err := p.fs.Lstat(p.rel)
	if p.rel != "." && m.fixed(name) && (err != nil || !a.Mode.IsDir()) {
		a = Attr{Mode: ModeDir | 0o555, Nlink: 1, Atime: m.made, Mtime: m.made, Ctime: m.made}
		return found{place: p, attr: a, synthetic: true}, nil //nolint:nilerr // said above
	}
	return found{place: p, attr: a}, err
}

// dev numbers the devices of all mounts anew. An entry beyond the limit has no identity.
func (m *mountFS) dev(mount int, dev, ino uint64) (newDev, newIno uint64) {
	if ino == 0 {
		return 0, 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := mountDev{mount, dev}
	n, ok := m.devs[key]
	if !ok {
		if len(m.devs) >= mountMaxDevs {
			return 0, 0
		}
		n = uint64(len(m.devs) + 1)
		m.devs[key] = n
	}
	return n, ino
}

func (m *mountFS) attr(mount int, a Attr) Attr {
	a.Dev, a.Ino = m.dev(mount, a.Dev, a.Ino)
	return a
}

// Lstat implements FS.
func (m *mountFS) Lstat(name string) (Attr, error) {
	p, err := m.existing(name)
	if err != nil {
		return Attr{}, err
	}
	return m.attr(p.mount, p.attr), nil
}

// Open implements FS.
func (m *mountFS) Open(name string, flags OpenFlag, create Create) (File, error) {
	p, err := m.find(name)
	if err != nil {
		return nil, err
	}
	if m.fixed(name) {
		if flags&(CreateFile|Excl) == CreateFile|Excl {
			return nil, EEXIST
		}
		return nil, EISDIR
	}
	f, err := p.fs.Open(p.rel, flags, create)
	if err != nil {
		return nil, err
	}
	return &mountFile{File: f, fs: m, mount: p.mount}, nil
}

// ReadDir implements FS.
func (m *mountFS) ReadDir(name string) iter.Seq2[DirEntry, error] {
	return func(yield func(DirEntry, error) bool) {
		p, err := m.existing(name)
		if err != nil {
			yield(DirEntry{}, err)
			return
		}
		points := m.points(name)
		for _, point := range points {
			if !yield(DirEntry{Name: point, Type: ModeDir}, nil) {
				return
			}
		}
		if p.synthetic {
			return
		}
		for e, err := range p.fs.ReadDir(p.rel) {
			if err == nil && slices.Contains(points, e.Name) {
				continue
			}
			e.Dev, e.Ino = m.dev(p.mount, e.Dev, e.Ino)
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// points returns the names in a directory that are mount points or lead to one.
func (m *mountFS) points(dir string) []string {
	var out []string
	for _, mount := range m.mounts[:len(m.mounts)-1] {
		rest, ok := mount.at, true
		if dir != "." {
			rest, ok = strings.CutPrefix(mount.at, dir+"/")
		}
		if first, _, _ := strings.Cut(rest, "/"); ok && !slices.Contains(out, first) {
			out = append(out, first)
		}
	}
	return out
}

// Mkdir implements FS.
func (m *mountFS) Mkdir(name string, create Create) error {
	p, err := m.create(name)
	if err != nil {
		return err
	}
	return p.fs.Mkdir(p.rel, create)
}

// Unlink implements FS.
func (m *mountFS) Unlink(name string) error {
	p, err := m.find(name)
	if err != nil {
		return err
	}
	if m.fixed(name) {
		return EISDIR
	}
	return p.fs.Unlink(p.rel)
}

// Rmdir implements FS.
func (m *mountFS) Rmdir(name string) error {
	p, err := m.change(name)
	if err != nil {
		return err
	}
	return p.fs.Rmdir(p.rel)
}

// Rename implements FS.
func (m *mountFS) Rename(oldName, newName string, flags RenameFlag) error {
	from, err := m.change(oldName)
	if err != nil {
		return err
	}
	to, err := m.change(newName)
	if err != nil {
		return err
	}
	if from.mount != to.mount {
		return EXDEV
	}
	return from.fs.Rename(from.rel, to.rel, flags)
}

// SetAttr implements FS.
func (m *mountFS) SetAttr(name string, set SetAttr) error {
	p, err := m.existing(name)
	if err != nil {
		return err
	}
	if p.synthetic {
		return EROFS
	}
	return p.fs.SetAttr(p.rel, set)
}

// Link implements Linker.
func (m *mountFS) Link(oldName, newName string) error {
	from, err := m.find(oldName)
	if err != nil {
		return err
	}
	if m.fixed(oldName) {
		return EPERM // a directory
	}
	to, err := m.create(newName)
	if err != nil {
		return err
	}
	if from.mount != to.mount {
		return EXDEV
	}
	if inner, ok := from.fs.(Linker); ok {
		return inner.Link(from.rel, to.rel)
	}
	return EPERM
}

// Symlink implements Symlinker.
func (m *mountFS) Symlink(target, newName string, create Create) error {
	p, err := m.create(newName)
	if err != nil {
		return err
	}
	if inner, ok := p.fs.(Symlinker); ok {
		return inner.Symlink(target, p.rel, create)
	}
	return EPERM
}

// Readlink implements Readlinker.
func (m *mountFS) Readlink(name string) (string, error) {
	p, err := m.find(name)
	if err != nil {
		return "", err
	}
	if inner, ok := p.fs.(Readlinker); ok && !m.fixed(name) {
		return inner.Readlink(p.rel)
	}
	return "", EINVAL
}

// StatFS implements StatFSer.
func (m *mountFS) StatFS() (StatFS, error) {
	if base, ok := m.mounts[len(m.mounts)-1].fs.(StatFSer); ok {
		return base.StatFS()
	}
	return StatFS{}, nil
}

// Cache implements Cacher.
func (m *mountFS) Cache() Cache {
	out := ExclusiveCache()
	for _, mount := range m.mounts {
		c := SharedCache()
		if inner, ok := mount.fs.(Cacher); ok {
			c = inner.Cache()
		}
		out.Attr, out.Entry, out.Negative = min(out.Attr, c.Attr), min(out.Entry, c.Entry), min(out.Negative, c.Negative)
		out.KeepPages = out.KeepPages && c.KeepPages
	}
	return out
}

// Check implements Checker.
func (m *mountFS) Check() error {
	var errs []error
	for _, mount := range m.mounts {
		if mount.fs == nil {
			errs = append(errs, fmt.Errorf("cannot mount at %q: there is no file system", mount.at))
			continue
		}
		if inner, ok := mount.fs.(Checker); ok {
			if err := inner.Check(); err != nil {
				errs = append(errs, fmt.Errorf("cannot mount at %q: %w", mount.at, err))
			}
		}
	}
	for _, mount := range m.mounts[:len(m.mounts)-1] {
		if mount.at == "." || CheckPath(mount.at) != nil {
			errs = append(errs, fmt.Errorf("cannot mount at %q: want names joined by single slashes, such as %q", mount.at, "a/b"))
		}
	}
	return errors.Join(errs...)
}

// SyncDir implements DirSyncer.
func (m *mountFS) SyncDir(name string) error {
	p, err := m.existing(name)
	if err != nil || p.synthetic {
		return err
	}
	if inner, ok := p.fs.(DirSyncer); ok {
		return inner.SyncDir(p.rel)
	}
	return nil
}

// mountFile gives the file of a mount the identity it has in the whole.
type mountFile struct {
	File

	fs    *mountFS
	mount int
}

// Stat implements File.
func (f *mountFile) Stat() (Attr, error) {
	a, err := f.File.Stat()
	if err != nil {
		return Attr{}, err
	}
	return f.fs.attr(f.mount, a), nil
}

// Append implements Appender. Without one beneath it writes at the end that the file has now.
func (f *mountFile) Append(p []byte) (int, error) {
	if inner, ok := f.File.(Appender); ok {
		return inner.Append(p)
	}
	a, err := f.File.Stat()
	if err != nil {
		return 0, err
	}
	return f.WriteAt(p, a.Size)
}

// Allocate implements Allocator.
func (f *mountFile) Allocate(off, length int64, flags AllocFlag) error {
	if inner, ok := f.File.(Allocator); ok {
		return inner.Allocate(off, length, flags)
	}
	return EOPNOTSUPP
}
