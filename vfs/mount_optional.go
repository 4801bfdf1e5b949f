package vfs

import "iter"

var (
	_ Mknoder      = (*mountFS)(nil)
	_ TmpFiler     = (*mountFS)(nil)
	_ DirStater    = (*mountFS)(nil)
	_ XattrFS      = (*mountFS)(nil)
	_ ExtentSeeker = (*mountFile)(nil)
	_ RangeCopier  = (*mountFile)(nil)
	_ FileLinker   = (*mountFile)(nil)
)

// Mknod implements Mknoder.
func (m *mountFS) Mknod(name string, kind Mode, create Create) error {
	p, err := m.create(name)
	if err != nil {
		return err
	}
	if inner, ok := p.fs.(Mknoder); ok {
		return inner.Mknod(p.rel, kind, create)
	}
	return EPERM
}

// TmpFile implements TmpFiler.
func (m *mountFS) TmpFile(dir string, create Create) (File, error) {
	p, err := m.existing(dir)
	switch {
	case err != nil:
		return nil, err
	case p.synthetic:
		return nil, EROFS
	}
	inner, ok := p.fs.(TmpFiler)
	if !ok {
		return nil, EOPNOTSUPP
	}
	f, err := inner.TmpFile(p.rel, create)
	if err != nil {
		return nil, err
	}
	return &mountFile{File: f, fs: m, mount: p.mount}, nil
}

// LstatIn implements DirStater. Only a directory without mount points in it is one of one file system.
func (m *mountFS) LstatIn(dir string, names []string) iter.Seq2[Attr, error] {
	p, err := m.find(dir)
	inner, ok := p.fs.(DirStater)
	if err != nil || !ok || len(m.points(dir)) > 0 {
		return lstatEach(m, dir, names)
	}
	return func(yield func(Attr, error) bool) {
		for a, err := range inner.LstatIn(p.rel, names) {
			if err == nil {
				a = m.attr(p.mount, a)
			}
			if !yield(a, err) {
				return
			}
		}
	}
}

// lstatEach is LstatIn by one call for each entry.
func lstatEach(fsys FS, dir string, names []string) iter.Seq2[Attr, error] {
	return func(yield func(Attr, error) bool) {
		for _, name := range names {
			path := name
			if dir != "." {
				path = dir + "/" + name
			}
			if !yield(fsys.Lstat(path)) {
				return
			}
		}
	}
}

// xattrs finds the keeper of an entry's extended attributes.
func (m *mountFS) xattrs(name string) (XattrFS, string, error) {
	p, err := m.existing(name)
	if err != nil {
		return nil, "", err
	}
	inner, ok := p.fs.(XattrFS)
	if !ok || p.synthetic {
		return nil, "", EOPNOTSUPP
	}
	return inner, p.rel, nil
}

// GetXattr implements XattrFS.
func (m *mountFS) GetXattr(name, attr string) ([]byte, error) {
	inner, rel, err := m.xattrs(name)
	if err != nil {
		return nil, err
	}
	return inner.GetXattr(rel, attr)
}

// SetXattr implements XattrFS.
func (m *mountFS) SetXattr(name, attr string, value []byte, flags XattrFlag) error {
	inner, rel, err := m.xattrs(name)
	if err != nil {
		return err
	}
	return inner.SetXattr(rel, attr, value, flags)
}

// ListXattr implements XattrFS.
func (m *mountFS) ListXattr(name string) ([]string, error) {
	inner, rel, err := m.xattrs(name)
	if err != nil {
		return nil, err
	}
	return inner.ListXattr(rel)
}

// RemoveXattr implements XattrFS.
func (m *mountFS) RemoveXattr(name, attr string) error {
	inner, rel, err := m.xattrs(name)
	if err != nil {
		return err
	}
	return inner.RemoveXattr(rel, attr)
}

// SeekExtent implements ExtentSeeker.
func (f *mountFile) SeekExtent(off int64, kind Extent) (int64, error) {
	return SeekExtent(f.File, off, kind)
}

// CopyRange implements RangeCopier.
func (f *mountFile) CopyRange(to File, srcOff, dstOff, length int64) (int64, error) {
	dst, ok := to.(*mountFile)
	if !ok || dst.fs != f.fs || dst.mount != f.mount {
		return 0, EXDEV
	}
	if inner, ok := f.File.(RangeCopier); ok {
		return inner.CopyRange(dst.File, srcOff, dstOff, length)
	}
	return 0, EOPNOTSUPP
}

// LinkTo implements FileLinker.
func (f *mountFile) LinkTo(newName string) error {
	p, err := f.fs.create(newName)
	switch {
	case err != nil:
		return err
	case p.mount != f.mount:
		return EXDEV
	}
	if inner, ok := f.File.(FileLinker); ok {
		return inner.LinkTo(p.rel)
	}
	return ENOENT
}
