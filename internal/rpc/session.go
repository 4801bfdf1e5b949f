package rpc

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"gondolin/internal/wire"
)

// preamble begins every session of a host. A guest that meets it, first or where
// a frame could begin, drops the session it was in: the host that speaks is then
// another one, which continues a copy of this guest and knows nothing of the
// streams there were. Its first byte is no version of yamux.
const preamble = "gondolin session\n"

// errReplaced ends a session that another has replaced.
var errReplaced = errors.New("the host began a new session")

// greeter is the host's end of a connection; it sends the preamble before
// anything else.
type greeter struct {
	io.ReadWriteCloser
	once sync.Once
}

// Write is called by one goroutine, yamux's.
func (g *greeter) Write(p []byte) (n int, err error) {
	g.once.Do(func() { _, err = g.ReadWriteCloser.Write([]byte(preamble)) })
	if err != nil {
		return 0, err
	}
	return g.ReadWriteCloser.Write(p)
}

// sessions cuts what a guest receives into the sessions of its hosts. One view is
// read at a time.
type sessions struct {
	conn io.ReadWriteCloser

	frames frames
	ahead  []byte // received, for the next session; begins with the preamble
}

// view is one session's part of the connection.
type view struct {
	all *sessions

	mu    sync.Mutex
	ended bool
}

// next waits for a host to begin a session.
func (s *sessions) next() (*view, error) {
	buf := make([]byte, len(preamble))
	n := copy(buf, s.ahead)
	s.ahead = s.ahead[n:]
	if _, err := io.ReadFull(s.conn, buf[n:]); err != nil {
		return nil, err
	}
	if string(buf) != preamble {
		return nil, wire.ErrProtocol
	}
	s.frames = frames{}
	return &view{all: s}, nil
}

// Read returns what belongs to the session, and errReplaced at the next one's beginning.
func (v *view) Read(p []byte) (int, error) {
	if v.gone() {
		return 0, errReplaced
	}
	n, err := v.read(p)
	if n > 0 {
		if at := v.all.replaced(p[:n]); at >= 0 {
			v.all.ahead = append(bytes.Clone(p[at:n]), v.all.ahead...)
			v.end()
			return at, nil
		}
	}
	return n, err
}

// replaced follows the frames in p and returns where a new session begins, or -1.
func (s *sessions) replaced(p []byte) int {
	for at := 0; at < len(p); {
		if s.frames.between() && p[at] == preamble[0] {
			return at
		}
		n, _ := s.frames.advance(p[at:])
		at += n
	}
	return -1
}

func (v *view) read(p []byte) (int, error) {
	if len(v.all.ahead) > 0 {
		n := copy(p, v.all.ahead)
		v.all.ahead = v.all.ahead[n:]
		return n, nil
	}
	return v.all.conn.Read(p)
}

// Write sends, as long as nobody has replaced the session. It may block for as
// long as the host does not read, which must not keep the session from ending.
func (v *view) Write(p []byte) (int, error) {
	if v.gone() {
		return 0, errReplaced
	}
	return v.all.conn.Write(p)
}

// Close ends the session and, unless it was replaced, the connection.
func (v *view) Close() error {
	if v.gone() {
		return nil
	}
	return v.all.conn.Close()
}

func (v *view) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ended = true
}

func (v *view) gone() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ended
}
