// Package initramfs writes the archives a guest boots from: the kernel modules of an image, the guest agent, and the
// two of them joined. Nothing is read back: the kernel is the only reader.
//
// The format is cpio "newc", as Documentation/driver-api/early-userspace/buffer-format.rst of the kernel describes it: a
// 110-byte header of hexadecimal ASCII, the name and a NUL padded to 4 bytes, the data padded to 4 bytes. Archives may
// follow one another, each starting at a multiple of 4; later entries replace earlier ones.
package initramfs

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// File types in the mode field of a header: cpio(5), the values of S_IFMT.
const (
	modeDir  = 0o040000
	modeFile = 0o100000
	modeChar = 0o020000
)

// align is what headers, names and data are padded to, and so what an archive's length is a multiple of.
const align = 4

// Writer streams an archive. Its methods remember the first error, and Close returns it too.
type Writer struct {
	w       io.Writer
	err     error
	written int64  // bytes so far
	inode   uint32 // of the last entry; the kernel only tells hard links apart by it
}

// NewWriter returns a Writer to w. The caller closes w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Dir adds a directory. Parents must have been added before.
func (w *Writer) Dir(name string, perm uint32) error {
	return w.entry(header{name: name, mode: modeDir | perm&0o7777, links: 2}, nil)
}

// File adds a regular file of exactly size bytes, read from r.
func (w *Writer) File(name string, perm uint32, size int64, r io.Reader) error {
	if size < 0 || size > maxFileSize {
		return w.fail(fmt.Errorf("cannot archive %s: size %d is not between 0 and %d", name, size, int64(maxFileSize)))
	}
	return w.entry(header{name: name, mode: modeFile | perm&0o7777, links: 1, size: uint32(size)}, r)
}

// CharDevice adds a character device node.
func (w *Writer) CharDevice(name string, perm, major, minor uint32) error {
	return w.entry(header{name: name, mode: modeChar | perm&0o7777, links: 1, major: major, minor: minor}, nil)
}

// Close writes the trailer. It does not close the underlying writer.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	w.inode = ^uint32(0) // so that the trailer's number, after the increment, is 0
	err := w.entry(header{name: "TRAILER!!!", links: 1}, nil)
	if w.err == nil {
		w.err = errors.New("cannot add to a closed archive")
	}
	return err
}

type header struct {
	name               string
	mode, links        uint32
	size, major, minor uint32
}

func (w *Writer) entry(h header, data io.Reader) error {
	if w.err != nil {
		return w.err
	}
	if err := checkName(h.name); err != nil {
		return w.fail(err)
	}
	w.inode++
	// magic, inode, mode, uid, gid, links, mtime, size, device major/minor, node major/minor, name size, checksum
	text := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		w.inode, h.mode, 0, 0, h.links, 0, h.size, 0, 0, h.major, h.minor, len(h.name)+1, 0, h.name)
	if err := w.write(text); err != nil {
		return err
	}
	if h.size > 0 {
		n, err := io.CopyN(w.w, data, int64(h.size))
		w.written += n
		if err != nil {
			return w.fail(fmt.Errorf("cannot archive %s: %w", h.name, err))
		}
	}
	return w.write("")
}

// write appends text and pads to the next multiple of 4.
func (w *Writer) write(text string) error {
	n := (w.written + int64(len(text))) % align
	if n != 0 {
		text += "\x00\x00\x00"[:align-n]
	}
	written, err := io.WriteString(w.w, text)
	w.written += int64(written)
	if err != nil {
		return w.fail(fmt.Errorf("cannot write archive: %w", err))
	}
	return nil
}

func (w *Writer) fail(err error) error {
	if w.err == nil {
		w.err = err
	}
	return err
}

func checkName(name string) error {
	if name == "" || len(name) > maxName || strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0) {
		return fmt.Errorf("cannot archive %q: not a usable name", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("cannot archive %q: not a clean relative name", name)
		}
	}
	return nil
}
