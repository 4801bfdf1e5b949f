package fsserver

import "gondolin/vfs"

// created describes a new entry to the provider.
func (r *request) created(mode uint32) vfs.Create {
	return vfs.Create{Perm: vfs.Mode(mode) & vfs.ModeBits, UID: r.uid, GID: r.gid}
}

// mkdir serves MKDIR.
func (s *Server) mkdir(req *request) error {
	mode := req.dec.u32()
	req.dec.u32() // umask, applied by the guest's kernel
	name := req.dec.text()
	if err := req.dec.err(); err != nil {
		return err
	}
	return s.atChild(req.node, name, func(parent *node, path string) error {
		if err := parent.mount.fs.Mkdir(path, req.created(mode)); err != nil {
			return err
		}
		return s.entry(req, parent, name, path)
	})
}

// mknod serves MKNOD for regular files, FIFOs and sockets; devices never reach a provider.
func (s *Server) mknod(req *request) error {
	mode := req.dec.u32()
	req.dec.skip(12) // rdev, umask, padding
	name := req.dec.text()
	if err := req.dec.err(); err != nil {
		return err
	}
	return s.atChild(req.node, name, func(parent *node, path string) error {
		if err := makeNode(parent.mount.fs, path, vfs.Mode(mode).Type(), req.created(mode)); err != nil {
			return err
		}
		return s.entry(req, parent, name, path)
	})
}

func makeNode(fsys vfs.FS, path string, kind vfs.Mode, create vfs.Create) error {
	switch kind {
	case vfs.ModeRegular, 0:
		f, err := fsys.Open(path, vfs.Write|vfs.CreateFile|vfs.Excl, create)
		if err != nil {
			return err
		}
		return f.Close()
	case vfs.ModeFIFO, vfs.ModeSocket:
		if m, ok := fsys.(vfs.Mknoder); ok {
			return m.Mknod(path, kind, create)
		}
	default: // devices
	}
	return vfs.EPERM
}

// symlink serves SYMLINK.
func (s *Server) symlink(req *request) error {
	name, target := req.dec.text(), req.dec.text()
	if err := req.dec.err(); err != nil {
		return err
	}
	return s.atChild(req.node, name, func(parent *node, path string) error {
		f, ok := parent.mount.fs.(vfs.Symlinker)
		if !ok {
			return vfs.EPERM
		}
		if err := f.Symlink(target, path, req.created(0o777)); err != nil {
			return err
		}
		return s.entry(req, parent, name, path)
	})
}

// readlink serves READLINK.
func (s *Server) readlink(req *request) error {
	n, err := s.table.get(req.node)
	if err != nil {
		return err
	}
	if n.mount == nil {
		return vfs.EINVAL
	}
	return s.at(n, func(path string) error {
		f, ok := n.mount.fs.(vfs.Readlinker)
		if !ok {
			return vfs.EINVAL
		}
		target, err := f.Readlink(path)
		if err != nil {
			return err
		}
		if len(target) > vfs.MaxTarget {
			return vfs.ENAMETOOLONG
		}
		req.out.b = append(req.out.b, target...)
		return nil
	})
}

// link serves LINK.
func (s *Server) link(req *request) error {
	oldID := req.dec.u64()
	name := req.dec.text()
	if err := req.dec.err(); err != nil {
		return err
	}
	old, err := s.table.get(oldID)
	if err != nil {
		return err
	}
	return s.atChild(req.node, name, func(parent *node, path string) error {
		if old.mount != parent.mount {
			return vfs.EXDEV
		}
		f, ok := parent.mount.fs.(vfs.Linker)
		if !ok {
			return vfs.EPERM
		}
		oldPath, err := s.table.path(old)
		if err != nil {
			return err
		}
		if err := f.Link(oldPath, path); err != nil {
			return err
		}
		return s.entry(req, parent, name, path)
	})
}

// unlink serves UNLINK.
func (s *Server) unlink(req *request) error { return s.remove(req, vfs.FS.Unlink) }

// rmdir serves RMDIR.
func (s *Server) rmdir(req *request) error { return s.remove(req, vfs.FS.Rmdir) }

func (s *Server) remove(req *request, op func(vfs.FS, string) error) error {
	name := req.dec.text()
	if err := req.dec.err(); err != nil {
		return err
	}
	return s.atChild(req.node, name, func(parent *node, path string) error {
		if err := op(parent.mount.fs, path); err != nil {
			return err
		}
		s.table.removed(parent, name)
		return nil
	})
}

// rename serves RENAME.
func (s *Server) rename(req *request) error {
	newDir := req.dec.u64()
	return s.move(req, newDir, 0)
}

// rename2 serves RENAME2.
func (s *Server) rename2(req *request) error {
	newDir, flags := req.dec.u64(), req.dec.u32()
	req.dec.u32()
	if vfs.RenameFlag(flags)&^(vfs.RenameNoReplace|vfs.RenameExchange) != 0 {
		return vfs.EINVAL
	}
	return s.move(req, newDir, vfs.RenameFlag(flags))
}

func (s *Server) move(req *request, newDir uint64, flags vfs.RenameFlag) error {
	oldName, newName := req.dec.text(), req.dec.text()
	if err := req.dec.err(); err != nil {
		return err
	}
	from, err := s.directory(req.node)
	if err != nil {
		return err
	}
	to, err := s.directory(newDir)
	switch {
	case err != nil:
		return err
	case from.mount == nil || to.mount == nil:
		return vfs.EROFS
	case from.mount != to.mount:
		return vfs.EXDEV
	}
	from.mount.tree.Lock()
	defer from.mount.tree.Unlock()
	oldPath, err := s.childPath(from, oldName)
	if err != nil {
		return err
	}
	newPath, err := s.childPath(to, newName)
	if err != nil {
		return err
	}
	if err := from.mount.fs.Rename(oldPath, newPath, flags); err != nil {
		return err
	}
	s.table.renamed(link{from, oldName}, link{to, newName}, flags)
	return nil
}

// childPath returns the path of a name in a directory; the tree lock is held.
func (s *Server) childPath(dir *node, name string) (string, error) {
	if err := vfs.CheckName(name); err != nil {
		return "", err
	}
	path, err := s.table.path(dir)
	if err != nil {
		return "", err
	}
	return join(path, name)
}
