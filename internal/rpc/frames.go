package rpc

import "encoding/binary"

// yamux's frame header: version, type, flags (2), stream id (4), length (4),
// big endian (hashicorp/yamux spec.md).
const (
	headerSize = 12

	typeData         = 0
	typeWindowUpdate = 1

	flagACK = 1 << 1
	flagFIN = 1 << 2
	flagRST = 1 << 3
)

// frames follows yamux's frames in a stream of bytes.
type frames struct {
	head    [headerSize]byte
	have    int    // bytes of head that have arrived
	payload uint32 // bytes of the present frame still to come
}

// between reports whether the next byte begins a frame.
func (f *frames) between() bool { return f.have == 0 && f.payload == 0 }

// advance takes in the beginning of p, which is not empty: bytes of a payload, or
// of a header. It returns how many, and whether they complete the header in f.head.
func (f *frames) advance(p []byte) (n int, header bool) {
	if f.payload > 0 {
		n = min(len(p), int(f.payload))
		f.payload -= uint32(n) //nolint:gosec // n <= payload
		return n, false
	}
	n = copy(f.head[f.have:], p)
	if f.have += n; f.have < headerSize {
		return n, false
	}
	f.have = 0
	if f.head[1] == typeData {
		f.payload = binary.BigEndian.Uint32(f.head[8:])
	}
	return n, true
}
