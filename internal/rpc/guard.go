package rpc

import (
	"encoding/binary"
	"fmt"
	"io"

	"gondolin/internal/wire"
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
	frames frames
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
		n, header := g.frames.advance(p[at:])
		if header {
			if err := check(g.frames.head); err != nil {
				return at, err
			}
		}
		at += n
	}
	return len(p), nil
}

// check judges a header.
func check(head [headerSize]byte) error {
	version, kind := head[0], head[1]
	flags := binary.BigEndian.Uint16(head[2:])
	id := binary.BigEndian.Uint32(head[4:])
	length := binary.BigEndian.Uint32(head[8:])
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
	return nil
}
