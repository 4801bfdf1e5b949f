package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// block is what the memory is hashed in, in bytes.
const block = 64 << 10

// hashMemory hashes a file that is mostly zeros: its size, and each block that is
// not zero with its offset. Where the file system stores holes does not matter.
func hashMemory(f *os.File) (string, error) {
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	size := info.Size()
	h := sha256.New()
	var number [8]byte
	binary.LittleEndian.PutUint64(number[:], uint64(size)) //nolint:gosec // a size
	h.Write(number[:])
	buf, zeros := make([]byte, block), make([]byte, block)
	for at := nextData(f, 0, size); at < size; at = nextData(f, at+block, size) {
		n, err := f.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("cannot read %s: %w", f.Name(), err)
		}
		if bytes.Equal(buf[:n], zeros[:n]) {
			continue
		}
		binary.LittleEndian.PutUint64(number[:], uint64(at)) //nolint:gosec // an offset
		h.Write(number[:])
		h.Write(buf[:n])
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// nextData returns the first block from at on that is not all hole, size if there is none.
func nextData(f *os.File, at, size int64) int64 {
	data, err := unix.Seek(int(f.Fd()), at, seekData)
	switch {
	case errors.Is(err, unix.ENXIO): // no data follows
		return size
	case err != nil: // not every file system knows its holes
		return at
	}
	return max(at, data/block*block)
}
