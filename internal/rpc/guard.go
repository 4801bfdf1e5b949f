package rpc

import (
	"encoding/binary"
	"fmt"
	"io"

	"gondolin/internal/wire"
)

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

// guard passes on what the guest sends as long as an honest guest could have
// sent it. It refuses, with an error that ends the session:
//
//   - pings, since yamux starts a goroutine for each to answer it and the
//     host never asks for any;
//   - new streams, since only the host opens them;
//   - data over the window, and ids no host stream can have.
type guard struct {
	io.ReadWriteCloser

	head    [headerSize]byte
	have    int    // bytes of head that have arrived
	payload uint32 // bytes of the present frame still to come
}

// Read reads and checks in place. Bytes of a frame that is refused may already
// have been handed on, but never its whole header.
func (g *guard) Read(p []byte) (int, error) {
	n, err := g.ReadWriteCloser.Read(p)
	if passed, bad := g.scan(p[:n]); bad != nil {
		return passed, bad
	}
	return n, err
}

// scan follows the frames in p. On a violation it returns how much of p may be passed on.
func (g *guard) scan(p []byte) (int, error) {
	for at := 0; at < len(p); {
		if g.payload > 0 {
			n := min(len(p)-at, int(g.payload))
			g.payload -= uint32(n) //nolint:gosec // n <= payload
			at += n
			continue
		}
		n := copy(g.head[g.have:], p[at:])
		g.have += n
		if g.have == headerSize {
			if err := g.check(); err != nil {
				return at, err
			}
			g.have = 0
		}
		at += n
	}
	return len(p), nil
}

// check judges the header in g.head and, for data, notes its payload.
func (g *guard) check() error {
	version, kind := g.head[0], g.head[1]
	flags := binary.BigEndian.Uint16(g.head[2:])
	id := binary.BigEndian.Uint32(g.head[4:])
	length := binary.BigEndian.Uint32(g.head[8:])
	switch {
	case version != 0:
		return fmt.Errorf("%w: multiplexer version %d", wire.ErrProtocol, version)
	case kind != typeData && kind != typeWindowUpdate:
		return fmt.Errorf("%w: multiplexer frame type %d", wire.ErrProtocol, kind)
	case flags&^(flagACK|flagFIN|flagRST) != 0:
		return fmt.Errorf("%w: multiplexer flags %#x", wire.ErrProtocol, flags)
	case id%2 != 1:
		return fmt.Errorf("%w: stream id %d is not the host's", wire.ErrProtocol, id)
	case length > window:
		return fmt.Errorf("%w: length %d exceeds the window", wire.ErrProtocol, length)
	}
	if kind == typeData {
		g.payload = length
	}
	return nil
}
