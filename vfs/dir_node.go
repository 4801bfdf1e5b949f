//go:build linux || darwin

package vfs

import (
	"iter"
	"strings"

	"golang.org/x/sys/unix"
)

// LstatIn implements DirStater.
func (d *DirFS) LstatIn(dir string, names []string) iter.Seq2[Attr, error] {
	return func(yield func(Attr, error) bool) {
		at, err := d.inside(dir)
		defer at.close()
		for _, name := range names {
			var a Attr
			nameErr := err
			if nameErr == nil {
				a, nameErr = d.lstatAt(at.fd, name)
			}
			if !yield(a, nameErr) {
				return
			}
		}
	}
}

// inside finds a directory as the parent of what is in it. The caller closes it, also after an error.
func (d *DirFS) inside(dir string) (dirAt, error) {
	if err := CheckPath(dir); err != nil {
		return dirAt{}, err
	}
	root, err := d.rootFD()
	if err != nil || dir == "." {
		return dirAt{dir: d, fd: root}, err
	}
	fd, err := openBeneath(root, dir)
	if err != nil {
		return dirAt{}, err
	}
	return dirAt{dir: d, fd: fd, owned: true}, nil
}

func (d *DirFS) lstatAt(fd int, name string) (Attr, error) {
	if err := CheckName(name); err != nil {
		return Attr{}, err
	}
	st, err := dirAt{fd: fd, base: name}.stat()
	if err != nil {
		return Attr{}, err
	}
	return d.attr(&st), nil
}

// Mknod implements Mknoder.
func (d *DirFS) Mknod(name string, kind Mode, create Create) error {
	switch {
	case kind != ModeFIFO && kind != ModeSocket, create.Perm&ModeSpecial != 0:
		return EPERM
	case name == ".":
		return EEXIST
	}
	at, err := d.child(name)
	if err != nil {
		return err
	}
	defer at.close()
	perm := create.Perm & ModePerm
	if err := at.mknod(kind, perm); err != nil {
		return err
	}
	st, err := at.stat()
	if err != nil || Mode(st.Mode) == kind|perm {
		return err
	}
	return at.chmod(perm) // the host's umask is not the guest's
}

// TmpFile implements TmpFiler.
func (d *DirFS) TmpFile(dir string, create Create) (File, error) {
	if create.Perm&ModeSpecial != 0 {
		return nil, EPERM
	}
	at, err := d.at(dir)
	if err != nil {
		return nil, err
	}
	defer at.close()
	perm := create.Perm & ModePerm
	fd, err := at.tmpFile(perm)
	if err != nil {
		return nil, err
	}
	if err := unix.Fchmod(fd, uint32(perm)); err != nil {
		closeFD(fd)
		return nil, err
	}
	return d.newFile(fd, dir, Write)
}

// checkXattr lets the user namespace through: the others mean something to the host.
func checkXattr(attr string) error {
	if err := keepsXattr(attr); err != nil {
		return err
	}
	if !strings.HasPrefix(attr, "user.") {
		return EOPNOTSUPP
	}
	return nil
}

// GetXattr implements XattrFS.
func (d *DirFS) GetXattr(name, attr string) ([]byte, error) {
	if err := checkXattr(attr); err != nil {
		return nil, err
	}
	at, err := d.at(name)
	if err != nil {
		return nil, err
	}
	defer at.close()
	return at.getXattr(attr)
}

// SetXattr implements XattrFS.
func (d *DirFS) SetXattr(name, attr string, value []byte, flags XattrFlag) error {
	if err := checkXattr(attr); err != nil {
		return err
	}
	if len(value) > MaxXattrValue {
		return E2BIG
	}
	at, err := d.at(name)
	if err != nil {
		return err
	}
	defer at.close()
	return at.setXattr(attr, value, flags)
}

// ListXattr implements XattrFS.
func (d *DirFS) ListXattr(name string) ([]string, error) {
	at, err := d.at(name)
	if err != nil {
		return nil, err
	}
	defer at.close()
	list, err := at.listXattr()
	if err != nil {
		return nil, err
	}
	var names []string
	for attr := range strings.SplitSeq(string(list), "\x00") {
		if checkXattr(attr) == nil {
			names = append(names, attr)
		}
	}
	return names, nil
}

// RemoveXattr implements XattrFS.
func (d *DirFS) RemoveXattr(name, attr string) error {
	if err := checkXattr(attr); err != nil {
		return err
	}
	at, err := d.at(name)
	if err != nil {
		return err
	}
	defer at.close()
	return at.removeXattr(attr)
}
