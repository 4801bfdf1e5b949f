package fsserver

import (
	"errors"
	"io"

	"gondolin/vfs"
)

// lseek serves LSEEK, which Linux sends for SEEK_DATA and SEEK_HOLE only.
func (s *Server) lseek(req *request) error {
	fh, offset, whence := req.dec.u64(), req.dec.u64(), req.dec.u32()
	if err := req.dec.err(); err != nil {
		return err
	}
	if whence != seekData && whence != seekHole {
		return vfs.EINVAL
	}
	off, err := fileOffset(offset)
	if err != nil {
		return vfs.ENXIO // beyond any file
	}
	h, err := s.getFile(fh)
	if err != nil {
		return err
	}
	defer s.put(h)
	kind := vfs.ExtentData
	if whence == seekHole {
		kind = vfs.ExtentHole
	}
	at, err := vfs.SeekExtent(h.file, off, kind)
	if err != nil {
		return err
	}
	if at < 0 {
		return vfs.EIO
	}
	req.out.u64(uint64(at))
	return nil
}

// copyRange serves COPY_FILE_RANGE.
func (s *Server) copyRange(req *request) error {
	srcID, srcOffset := req.dec.u64(), req.dec.u64()
	req.dec.u64() // the node of the destination, which its handle says too
	dstID, dstOffset, length, flags := req.dec.u64(), req.dec.u64(), req.dec.u64(), req.dec.u64()
	if err := req.dec.err(); err != nil {
		return err
	}
	srcOff, err := fileOffset(srcOffset)
	if err != nil {
		return err
	}
	dstOff, err := fileOffset(dstOffset)
	if err != nil {
		return err
	}
	if flags != 0 {
		return vfs.EINVAL
	}
	src, err := s.getFile(srcID)
	if err != nil {
		return err
	}
	defer s.put(src)
	dst, err := s.getFile(dstID)
	if err != nil {
		return err
	}
	defer s.put(dst)
	switch {
	case !dst.write:
		return vfs.EBADF
	case src.node.mount != dst.node.mount:
		return vfs.EXDEV // upon which Linux reads and writes
	}
	n, err := copyFile(src.file, dst.file, srcOff, dstOff, int64(min(length, maxCopy)))
	if err != nil {
		return err
	}
	if n < 0 || n > maxCopy {
		return vfs.EIO
	}
	req.out.u32(uint32(n))
	req.out.u32(0)
	return nil
}

// copyFile copies within the provider, or through a buffer if that cannot.
func copyFile(src, dst vfs.File, srcOff, dstOff, length int64) (int64, error) {
	if c, ok := src.(vfs.RangeCopier); ok {
		n, err := c.CopyRange(dst, srcOff, dstOff, length)
		if errno := vfs.ErrnoOf(err); errno != vfs.EXDEV && errno != vfs.EOPNOTSUPP {
			return n, err
		}
	}
	buf := newBuffer(maxMessage)
	defer buf.free()
	p := buf.data[:min(length, maxWrite)]
	n, err := src.ReadAt(p, srcOff)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if n < 0 || n > len(p) {
		return 0, vfs.EIO
	}
	if n == 0 {
		return 0, nil
	}
	n, err = dst.WriteAt(p[:n], dstOff)
	if n > 0 {
		err = nil
	}
	return int64(n), err
}
