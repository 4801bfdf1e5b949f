package fsserver

import (
	"strconv"

	"gondolin/vfs"
)

// opendir serves OPENDIR. Nothing is read before the first READDIR.
func (s *Server) opendir(req *request) error {
	n, err := s.table.get(req.node)
	if err != nil {
		return err
	}
	if !n.kind.IsDir() {
		return vfs.ENOTDIR
	}
	if err := s.handles.reserve(); err != nil {
		return err
	}
	req.out.u64(s.handles.add(s.table, &handle{node: n}))
	req.out.u64(0)
	return nil
}

// readdir serves READDIR.
func (s *Server) readdir(req *request) error { return s.listDir(req, s.putDirent) }

// readdirplus serves READDIRPLUS.
func (s *Server) readdirplus(req *request) error { return s.listDir(req, s.putDirentPlus) }

// dirPutter appends one entry; false: it does not fit.
type dirPutter func(req *request, dir *node, e vfs.DirEntry, next uint64, room int) bool

// listDir replies with entries from an offset on: "." is 0, ".." is 1, and the listing follows. The listing is taken once,
// at offset 0, so removals and additions during the iteration cannot shift it.
func (s *Server) listDir(req *request, put dirPutter) error {
	fh, offset, size := req.dec.u64(), req.dec.u64(), req.dec.u32()
	if err := req.dec.err(); err != nil {
		return err
	}
	if size > maxWrite {
		return vfs.EINVAL
	}
	h, err := s.handles.get(fh)
	if err != nil {
		return err
	}
	defer s.put(h)
	if h.file != nil {
		return vfs.EBADF
	}
	h.dirMu.Lock()
	defer h.dirMu.Unlock()
	if offset == 0 {
		if err := s.fill(h); err != nil {
			return err
		}
	}
	limit := replyHeaderSize + int(size)
	for i := offset; i < uint64(len(h.listing))+2; i++ {
		e := vfs.DirEntry{Name: ".", Type: vfs.ModeDir}
		switch i {
		case 0:
		case 1:
			e.Name = ".."
		default:
			e = h.listing[i-2]
		}
		if !put(req, h.node, e, i+1, limit-len(req.out.b)) {
			break
		}
	}
	return nil
}

// fill takes the listing of an open directory. h.dirMu is held.
func (s *Server) fill(h *handle) error {
	if err := s.handles.countNames(-len(h.listing)); err != nil {
		return err
	}
	h.listing = nil
	list, err := s.list(h.node)
	if err != nil {
		return err
	}
	if err := s.handles.countNames(len(list)); err != nil {
		return err
	}
	h.listing = list
	return nil
}

func (s *Server) list(n *node) ([]vfs.DirEntry, error) {
	var list []vfs.DirEntry
	if n.mount == nil {
		for i := range s.mounts {
			list = append(list, vfs.DirEntry{Name: strconv.Itoa(i), Type: vfs.ModeDir})
		}
		return list, nil
	}
	n.mount.lists <- struct{}{}
	defer func() { <-n.mount.lists }()
	err := s.at(n, func(path string) error {
		for e, err := range n.mount.fs.ReadDir(path) {
			if err != nil {
				return err
			}
			if len(list) >= s.limits.DirEntries {
				return vfs.ENOMEM
			}
			if vfs.CheckName(e.Name) == nil {
				list = append(list, e)
			}
		}
		return nil
	})
	if vfs.ErrnoOf(err) == vfs.ESTALE {
		return nil, nil // removed while open: empty, as on Linux
	}
	return list, err
}

// putDirent appends struct fuse_dirent.
func (s *Server) putDirent(req *request, dir *node, e vfs.DirEntry, next uint64, room int) bool {
	if direntLen(e.Name) > room {
		return false
	}
	req.out.dirent(listedIno(dir, e), next, e.Type, e.Name)
	return true
}

// unknownIno is FUSE_UNKNOWN_INO of fs/fuse: the guest makes up a number.
const unknownIno = 0xffffffff

func listedIno(dir *node, e vfs.DirEntry) uint64 {
	if e.Ino == 0 || dir.mount == nil {
		return unknownIno
	}
	return visibleIno(dir, &vfs.Attr{Dev: e.Dev, Ino: e.Ino})
}

// putDirentPlus appends struct fuse_direntplus. Attributes are fetched now, not with the listing, because the guest's
// kernel takes them for current. An entry that cannot be described goes without them.
func (s *Server) putDirentPlus(req *request, dir *node, e vfs.DirEntry, next uint64, room int) bool {
	if entryOutSize+direntLen(e.Name) > room {
		return false
	}
	if e.Name == "." || e.Name == ".." || dir.mount == nil {
		req.out.noEntry(0)
		return s.putDirent(req, dir, e, next, room)
	}
	mark := len(req.out.b)
	err := s.at(dir, func(path string) error {
		path, err := join(path, e.Name)
		if err != nil {
			return err
		}
		return s.entry(req, dir, e.Name, path)
	})
	switch vfs.ErrnoOf(err) {
	case 0:
	case vfs.ENOENT, vfs.ESTALE:
		return true // removed since: left out
	default:
		req.out.b = req.out.b[:mark]
		req.out.noEntry(0)
	}
	return s.putDirent(req, dir, e, next, room)
}

// fsyncdir serves FSYNCDIR.
func (s *Server) fsyncdir(req *request) error {
	n, err := s.table.get(req.node)
	if err != nil {
		return err
	}
	if n.mount == nil {
		return nil
	}
	f, ok := n.mount.fs.(vfs.DirSyncer)
	if !ok {
		return nil
	}
	return s.at(n, f.SyncDir)
}
