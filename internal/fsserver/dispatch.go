package fsserver

import (
	"fmt"
	"strconv"
	"time"

	"gondolin/vfs"
)

// handlers lists the operations served. All others are ENOSYS, upon which Linux stops asking for
// GETXATTR, SETXATTR, LISTXATTR, REMOVEXATTR, FLUSH, ACCESS, POLL, BMAP, TMPFILE, SYNCFS, STATX
// and locks, and does without or does it itself (fs/fuse/{file,dir,xattr}.c: the no_* fields of fuse_conn).
var handlers = map[opcode]func(*Server, *request) error{
	opLookup:      (*Server).lookup,
	opForget:      (*Server).forget,
	opBatchForget: (*Server).batchForget,
	opGetattr:     (*Server).getattr,
	opSetattr:     (*Server).setattr,
	opStatfs:      (*Server).statfs,
	opReadlink:    (*Server).readlink,
	opSymlink:     (*Server).symlink,
	opLink:        (*Server).link,
	opMknod:       (*Server).mknod,
	opMkdir:       (*Server).mkdir,
	opUnlink:      (*Server).unlink,
	opRmdir:       (*Server).rmdir,
	opRename:      (*Server).rename,
	opRename2:     (*Server).rename2,
	opOpen:        (*Server).open,
	opCreate:      (*Server).create,
	opRead:        (*Server).read,
	opWrite:       (*Server).write,
	opFsync:       (*Server).fsync,
	opFallocate:   (*Server).fallocate,
	opLseek:       (*Server).lseek,
	opCopyRange:   (*Server).copyRange,
	opRelease:     (*Server).releaseHandle,
	opOpendir:     (*Server).opendir,
	opReaddir:     (*Server).readdir,
	opReaddirplus: (*Server).readdirplus,
	opFsyncdir:    (*Server).fsyncdir,
	opReleasedir:  (*Server).releaseHandle,
	opInterrupt:   (*Server).ignore,
	opNotifyReply: (*Server).ignore,
	opDestroy:     func(*Server, *request) error { return nil },
	opIoctl:       func(*Server, *request) error { return vfs.ENOTTY },
}

// ignore takes messages that have no reply. Interrupts are accepted and change nothing: the request they name ends
// by itself, and Linux waits for that.
func (s *Server) ignore(req *request) error {
	req.noReply = true
	return nil
}

// at runs fn with the path of a node, which nobody renames meanwhile. Calls do not nest.
func (s *Server) at(n *node, fn func(path string) error) error {
	if n.mount == nil {
		return vfs.EROFS
	}
	n.mount.tree.RLock()
	defer n.mount.tree.RUnlock()
	path, err := s.table.path(n)
	if err != nil {
		return err
	}
	return fn(path)
}

// directory is get for a node that will have a name looked up, made or removed in it. No provider is asked for a name
// below a symbolic link.
func (s *Server) directory(id uint64) (*node, error) {
	n, err := s.table.get(id)
	if err == nil && !n.kind.IsDir() {
		return nil, vfs.ENOTDIR
	}
	return n, err
}

// atChild is at for a name in a directory.
func (s *Server) atChild(parent uint64, name string, fn func(parent *node, path string) error) error {
	dir, err := s.directory(parent)
	if err != nil {
		return err
	}
	if err := vfs.CheckName(name); err != nil {
		return err
	}
	return s.at(dir, func(path string) error {
		path, err := join(path, name)
		if err != nil {
			return err
		}
		return fn(dir, path)
	})
}

// join returns the path of a checked name in a directory.
func join(dir, name string) (string, error) {
	if dir == "." {
		return name, nil
	}
	if len(dir)+1+len(name) > vfs.MaxPath {
		return "", vfs.ENAMETOOLONG
	}
	return dir + "/" + name, nil
}

// lookup serves LOOKUP.
func (s *Server) lookup(req *request) error {
	name := req.dec.text()
	if err := req.dec.err(); err != nil {
		return err
	}
	if req.node == rootID {
		return s.lookupMount(req, name)
	}
	return s.atChild(req.node, name, func(parent *node, path string) error {
		err := s.entry(req, parent, name, path)
		if negative := parent.mount.cache.Negative; negative > 0 && vfs.ErrnoOf(err) == vfs.ENOENT {
			req.out.noEntry(negative)
			return nil
		}
		return err
	})
}

// lookupMount finds a mount by its index.
func (s *Server) lookupMount(req *request, name string) error {
	i, err := strconv.Atoi(name)
	if err != nil || i < 0 || i >= len(s.mounts) || strconv.Itoa(i) != name {
		return vfs.ENOENT
	}
	m := s.mounts[i]
	n, err := s.table.get(mountID(i))
	if err != nil {
		return err
	}
	a, err := m.fs.Lstat(".")
	if err != nil {
		return err
	}
	req.out.entry(n.id, visibleIno(n, &a), &a, m.cache)
	return nil
}

// entry replies with what is at path, and counts the reference.
func (s *Server) entry(req *request, parent *node, name, path string) error {
	a, err := parent.mount.fs.Lstat(path)
	if err != nil {
		return err
	}
	n, err := s.table.enter(parent, name, &a)
	if err != nil {
		return err
	}
	req.out.entry(n.id, visibleIno(n, &a), &a, parent.mount.cache)
	return nil
}

// forget serves FORGET, which has no reply.
func (s *Server) forget(req *request) error {
	req.noReply = true
	count := req.dec.u64()
	if !req.dec.bad {
		s.table.forget(req.node, count)
	}
	return nil
}

// batchForget serves BATCH_FORGET, which has no reply. The body's length bounds it, not its count.
func (s *Server) batchForget(req *request) error {
	req.noReply = true
	count := req.dec.u32()
	req.dec.u32()
	for range min(count, maxForgetCount) {
		id, lookups := req.dec.u64(), req.dec.u64()
		if req.dec.bad {
			return nil
		}
		s.table.forget(id, lookups)
	}
	return nil
}

// stat returns the attributes of a node: by its path, or by an open file if the path is gone or leads elsewhere now.
func (s *Server) stat(n *node) (vfs.Attr, error) {
	if n.mount == nil {
		now := time.Unix(0, 0)
		return vfs.Attr{
			Mode: vfs.ModeDir | 0o755, Nlink: uint32(2 + len(s.mounts)), //nolint:gosec // G115: a count of mounts.
			Atime: now, Mtime: now, Ctime: now,
		}, nil
	}
	var a vfs.Attr
	err := s.at(n, func(path string) (err error) {
		a, err = n.mount.fs.Lstat(path)
		return err
	})
	if err == nil && s.sameFile(n, &a) {
		return a, nil
	}
	if errno := vfs.ErrnoOf(err); err != nil && errno != vfs.ESTALE && errno != vfs.ENOENT && errno != vfs.ENOTDIR {
		return vfs.Attr{}, err
	}
	h, handleErr := s.ofNode(n)
	if handleErr != nil {
		return vfs.Attr{}, vfs.ESTALE
	}
	defer s.put(h)
	return h.file.Stat()
}

// sameFile reports whether attributes found at a node's path are still those of the node.
func (s *Server) sameFile(n *node, a *vfs.Attr) bool {
	if n.isMountRoot() {
		return a.Mode.IsDir()
	}
	if a.Mode.Type() != n.kind {
		return false
	}
	return n.key.ino == 0 || n.key.ino == a.Ino && n.key.dev == a.Dev
}

// getattr serves GETATTR.
func (s *Server) getattr(req *request) error {
	flags := req.dec.u32()
	req.dec.u32()
	fh := req.dec.u64()
	if err := req.dec.err(); err != nil {
		return err
	}
	n, err := s.table.get(req.node)
	if err != nil {
		return err
	}
	if flags&getattrFH != 0 {
		if h, err := s.getFile(fh); err == nil {
			defer s.put(h)
			if h.node == n {
				return s.attrReply(req, n, h.file.Stat)
			}
		}
	}
	return s.attrReply(req, n, func() (vfs.Attr, error) { return s.stat(n) })
}

func (s *Server) attrReply(req *request, n *node, stat func() (vfs.Attr, error)) error {
	a, err := stat()
	if err != nil {
		return err
	}
	cache := vfs.ExclusiveCache()
	if n.mount != nil {
		cache = n.mount.cache
	}
	req.out.attrOut(visibleIno(n, &a), &a, cache)
	return nil
}

// setattr serves SETATTR.
func (s *Server) setattr(req *request) error {
	set, fh, err := parseSetattr(&req.dec)
	if err != nil {
		return err
	}
	n, err := s.table.get(req.node)
	if err != nil {
		return err
	}
	if n.mount == nil {
		return vfs.EROFS
	}
	if err := s.change(n, set, fh); err != nil {
		return err
	}
	return s.attrReply(req, n, func() (vfs.Attr, error) { return s.stat(n) })
}

// change applies set through the handle that the guest names, by path, or through any open file if the path is gone.
func (s *Server) change(n *node, set vfs.SetAttr, fh uint64) error {
	if fh != 0 && set.Has(vfs.SetSize) {
		h, err := s.getFile(fh)
		if err != nil {
			return err
		}
		defer s.put(h)
		switch {
		case h.node != n:
			return vfs.EBADF
		case !h.write:
			return vfs.EINVAL // ftruncate(2)
		}
		return h.file.SetAttr(set)
	}
	err := s.at(n, func(path string) error {
		a, err := n.mount.fs.Lstat(path)
		if err != nil {
			return err
		}
		if !s.sameFile(n, &a) {
			return vfs.ESTALE
		}
		return n.mount.fs.SetAttr(path, set)
	})
	if errno := vfs.ErrnoOf(err); errno != vfs.ESTALE && errno != vfs.ENOENT {
		return err
	}
	h, handleErr := s.ofNode(n)
	if handleErr != nil {
		return vfs.ESTALE
	}
	defer s.put(h)
	return h.file.SetAttr(set)
}

// parseSetattr reads struct fuse_setattr_in. fh is 0 without FATTR_FH; handle ids start at 1.
func parseSetattr(d *decoder) (set vfs.SetAttr, fh uint64, err error) {
	valid := d.u32()
	d.u32()
	fh = d.u64()
	size := d.u64()
	d.u64() // lock_owner
	atime, mtime := d.u64(), d.u64()
	d.u64() // ctime
	atimeNsec, mtimeNsec := d.u32(), d.u32()
	d.u32() // ctimensec
	set.Mode = vfs.Mode(d.u32()) & vfs.ModeBits
	d.u32() // unused4
	set.UID, set.GID = d.u32(), d.u32()
	if err := d.err(); err != nil {
		return set, 0, err
	}
	if valid&attrFH == 0 {
		fh = 0
	}
	for bit, field := range map[uint32]vfs.SetMask{
		attrMode: vfs.SetMode, attrUID: vfs.SetUID, attrGID: vfs.SetGID,
		attrSize: vfs.SetSize, attrAtime: vfs.SetAtime, attrMtime: vfs.SetMtime,
	} {
		if valid&bit != 0 {
			set.Mask |= field
		}
	}
	if set.Has(vfs.SetSize) {
		if set.Size, err = fileOffset(size); err != nil {
			return set, 0, err
		}
	}
	if set.Has(vfs.SetAtime) {
		if set.Atime, err = pickTime(valid&attrAtimeNow, atime, atimeNsec); err != nil {
			return set, 0, err
		}
	}
	if set.Has(vfs.SetMtime) {
		set.Mtime, err = pickTime(valid&attrMtimeNow, mtime, mtimeNsec)
	}
	return set, fh, err
}

// pickTime is the time from the wire, or the host's if now is set: the guest's clock may be behind after a restore.
func pickTime(now uint32, sec uint64, nsec uint32) (time.Time, error) {
	if now != 0 {
		return time.Now(), nil
	}
	return wireTime(sec, nsec)
}

// statfs serves STATFS.
func (s *Server) statfs(req *request) error {
	n, err := s.table.get(req.node)
	if err != nil {
		return err
	}
	var st vfs.StatFS
	if n.mount != nil {
		if f, ok := n.mount.fs.(vfs.StatFSer); ok {
			if st, err = f.StatFS(); err != nil {
				return fmt.Errorf("cannot stat mount %d: %w", n.mount.index, err)
			}
		}
	}
	req.out.statfs(st)
	return nil
}
