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
	// held is told of the guest's answer to a hold, the only mark it may send, which is
	// not passed on. It reports whether one was expected; nil: never.
	held func() bool

	frames frames
	mark   int // bytes of a mark that have arrived
}

// Read reads and checks in place. Bytes of a frame that is refused may already
// have been handed on, but never its whole header.
func (g *guard) Read(p []byte) (int, error) {
	for {
		n, err := g.ReadWriteCloser.Read(p)
		passed, bad := g.scan(p[:n])
		if bad != nil {
			return passed, bad
		}
		if passed > 0 || n == 0 || err != nil {
			return passed, err
		}
	}
}

// scan follows the frames in p, and takes a mark out. It returns how much of p may be passed on.
func (g *guard) scan(p []byte) (int, error) {
	for at := 0; at < len(p); {
		if g.mark > 0 || g.frames.between() && p[at] == markHold[0] {
			n, err := g.scanMark(p[at:])
			if err != nil {
				return at, err
			}
			p = append(p[:at], p[at+n:]...)
			continue
		}
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

// scanMark follows the mark in the beginning of p and returns how much of p it is.
func (g *guard) scanMark(p []byte) (int, error) {
	n := min(len(p), markSize-g.mark)
	if string(p[:n]) != markHold[g.mark:g.mark+n] {
		return 0, fmt.Errorf("%w: neither a frame nor a mark", wire.ErrProtocol)
	}
	if g.mark += n; g.mark == markSize {
		g.mark = 0
		if g.held == nil || !g.held() {
			return 0, fmt.Errorf("%w: an answer to a hold that was not asked for", wire.ErrProtocol)
		}
	}
	return n, nil
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
