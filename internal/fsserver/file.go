package fsserver

import (
	"errors"
	"io"

	"gondolin/vfs"
)

// openFlags converts flags of open(2). CREATE and EXCL are the caller's.
func openFlags(flags uint32) (vfs.OpenFlag, error) {
	var out vfs.OpenFlag
	switch flags & accessMode {
	case 0:
	case openWrite, openRDWR:
		out |= vfs.Write
	default:
		return 0, vfs.EINVAL
	}
	if flags&openTrunc != 0 {
		if out&vfs.Write == 0 { // Linux truncates for O_RDONLY|O_TRUNC too
			out |= vfs.Write
		}
		out |= vfs.Trunc
	}
	return out, nil
}

// open serves OPEN.
func (s *Server) open(req *request) error {
	flags := req.dec.u32()
	if err := req.dec.err(); err != nil {
		return err
	}
	n, err := s.table.get(req.node)
	if err != nil {
		return err
	}
	how, err := openFlags(flags)
	if err != nil {
		return err
	}
	if n.kind.IsDir() {
		return vfs.EISDIR
	}
	if err := s.handles.reserve(); err != nil {
		return err
	}
	done := false
	defer func() {
		if !done { // also if the provider panics
			s.handles.cancel()
		}
	}()
	f, err := s.openNode(n, how)
	if err != nil {
		return err
	}
	done = true
	s.openReply(req, n, f, flags)
	return nil
}

// openNode opens the file that n is, and nothing that took its name meanwhile: upon ESTALE the guest's kernel looks the name
// up again. So truncation has to wait until it is known which file was opened.
func (s *Server) openNode(n *node, how vfs.OpenFlag) (vfs.File, error) {
	var f vfs.File
	err := s.at(n, func(path string) (err error) {
		f, err = n.mount.fs.Open(path, how&^vfs.Trunc, vfs.Create{})
		return err
	})
	if errno := vfs.ErrnoOf(err); errno == vfs.ENOENT || errno == vfs.ENOTDIR {
		return nil, vfs.ESTALE // it may have another name
	}
	if err != nil {
		return nil, err
	}
	a, err := f.Stat()
	if err == nil && !s.sameFile(n, &a) {
		err = vfs.ESTALE
	}
	if err == nil && how&vfs.Trunc != 0 {
		err = f.SetAttr(vfs.SetAttr{Mask: vfs.SetSize})
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openReply enters a reserved handle and appends struct fuse_open_out.
func (s *Server) openReply(req *request, n *node, f vfs.File, flags uint32) {
	h := &handle{node: n, file: f, write: flags&accessMode != 0}
	req.out.u64(s.handles.add(s.table, h))
	var cache uint32
	if n.mount.cache.KeepPages && flags&openTrunc == 0 {
		cache = openKeepCache
	}
	req.out.u32(cache)
	req.out.u32(0)
}

// create serves CREATE: make and open in one.
func (s *Server) create(req *request) error {
	flags, mode := req.dec.u32(), req.dec.u32()
	req.dec.skip(8) // umask, open_flags
	name := req.dec.text()
	if err := req.dec.err(); err != nil {
		return err
	}
	how, err := openFlags(flags)
	if err != nil {
		return err
	}
	how |= vfs.CreateFile
	if flags&openExcl != 0 {
		how |= vfs.Excl
	}
	if err := s.handles.reserve(); err != nil {
		return err
	}
	done := false
	defer func() {
		if !done {
			s.handles.cancel()
		}
	}()
	return s.atChild(req.node, name, func(parent *node, path string) error {
		f, err := parent.mount.fs.Open(path, how, req.created(mode))
		if err != nil {
			return err
		}
		n, a, err := s.enterOpen(parent, name, f)
		if err != nil {
			f.Close()
			return err
		}
		done = true
		req.out.entry(n.id, visibleIno(n, &a), &a, parent.mount.cache)
		s.openReply(req, n, f, flags)
		return nil
	})
}

// enterOpen is enter for a file that was just opened, so that name and handle are the same file for sure.
func (s *Server) enterOpen(parent *node, name string, f vfs.File) (*node, vfs.Attr, error) {
	a, err := f.Stat()
	if err != nil {
		return nil, a, err
	}
	n, err := s.table.enter(parent, name, &a)
	return n, a, err
}

// releaseHandle serves RELEASE and RELEASEDIR.
func (s *Server) releaseHandle(req *request) error {
	fh := req.dec.u64()
	if err := req.dec.err(); err != nil {
		return err
	}
	return s.release(fh)
}

// read serves READ.
func (s *Server) read(req *request) error {
	fh, offset, size := req.dec.u64(), req.dec.u64(), req.dec.u32()
	if err := req.dec.err(); err != nil {
		return err
	}
	off, err := fileOffset(offset)
	if err != nil {
		return err
	}
	if size > maxWrite {
		return vfs.EINVAL
	}
	h, err := s.getFile(fh)
	if err != nil {
		return err
	}
	defer s.put(h)
	buf := req.outBuf.data[replyHeaderSize : replyHeaderSize+int(size)]
	n, err := h.file.ReadAt(buf, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if n < 0 || n > len(buf) {
		return vfs.EIO // a provider that does not keep the contract
	}
	req.out.b = req.outBuf.data[:replyHeaderSize+n]
	return nil
}

// write serves WRITE.
func (s *Server) write(req *request) error {
	fh, offset, size, how := req.dec.u64(), req.dec.u64(), req.dec.u32(), req.dec.u32()
	req.dec.skip(8) // lock_owner
	flags := req.dec.u32()
	req.dec.skip(4) // padding
	if err := req.dec.err(); err != nil {
		return err
	}
	data := req.dec.b
	if uint64(size) != uint64(len(data)) || size > maxWrite {
		return vfs.EINVAL
	}
	off, err := fileOffset(offset)
	if err != nil {
		return err
	}
	h, err := s.getFile(fh)
	if err != nil {
		return err
	}
	defer s.put(h)
	if !h.write {
		return vfs.EBADF
	}
	var n int
	// Pages written back from the guest's cache have offsets of their own.
	if flags&openAppend != 0 && how&writeFromCache == 0 {
		n, err = appendTo(h.file, data, off)
	} else {
		n, err = h.file.WriteAt(data, off)
	}
	if n <= 0 && err != nil {
		return err
	}
	if n < 0 || n > len(data) {
		return vfs.EIO
	}
	req.out.u32(uint32(n)) //nolint:gosec // G115: at most maxWrite.
	req.out.u32(0)
	return nil
}

// appendTo appends for O_APPEND, so that others who write to the file are not overwritten.
func appendTo(f vfs.File, data []byte, off int64) (int, error) {
	if a, ok := f.(vfs.Appender); ok {
		return a.Append(data)
	}
	return f.WriteAt(data, off)
}

// fsync serves FSYNC.
func (s *Server) fsync(req *request) error {
	fh := req.dec.u64()
	if err := req.dec.err(); err != nil {
		return err
	}
	h, err := s.getFile(fh)
	if err != nil {
		return err
	}
	defer s.put(h)
	return h.file.Sync()
}

// fallocate serves FALLOCATE.
func (s *Server) fallocate(req *request) error {
	fh, offset, length, mode := req.dec.u64(), req.dec.u64(), req.dec.u64(), req.dec.u32()
	if err := req.dec.err(); err != nil {
		return err
	}
	off, err := fileOffset(offset)
	if err != nil {
		return err
	}
	n, err := fileOffset(length)
	if err != nil {
		return err
	}
	h, err := s.getFile(fh)
	if err != nil {
		return err
	}
	defer s.put(h)
	a, ok := h.file.(vfs.Allocator)
	flags := vfs.AllocFlag(mode)
	switch {
	case !ok:
		return vfs.EOPNOTSUPP
	case !h.write:
		return vfs.EBADF
	}
	if err := flags.Check(off, n); err != nil {
		return err
	}
	return a.Allocate(off, n, flags)
}
