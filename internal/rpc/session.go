package rpc

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"gondolin/internal/wire"
)

// errReplaced ends a session that another has replaced.
var errReplaced = errors.New("the host began a new session")

// sessions cuts what a guest receives into the sessions of its hosts. One view is
// read at a time.
type sessions struct {
	conn io.ReadWriteCloser
	gate *gate

	frames frames
	ahead  []byte // received and not yet looked at; begins with a mark
}

// view is one session's part of the connection.
type view struct {
	all *sessions

	mu    sync.Mutex
	ended bool
}

// next waits for a host to begin a session.
func (s *sessions) next() (*view, error) {
	mark, err := s.mark()
	if err != nil {
		return nil, err
	}
	if mark != markSession {
		return nil, wire.ErrProtocol
	}
	s.frames = frames{}
	s.gate.restart()
	return &view{all: s}, nil
}

// mark reads a mark.
func (s *sessions) mark() (string, error) {
	buf := make([]byte, markSize)
	n := copy(buf, s.ahead)
	s.ahead = s.ahead[n:]
	if _, err := io.ReadFull(s.conn, buf[n:]); err != nil {
		return "", err
	}
	return string(buf), nil
}

// Read returns what belongs to the session, and errReplaced at the next one's
// beginning. It does what the marks on the way say.
func (v *view) Read(p []byte) (int, error) {
	for {
		if v.gone() {
			return 0, errReplaced
		}
		n, err := v.read(p)
		at := v.all.nextMark(p[:n])
		if at < 0 {
			return n, err
		}
		v.all.ahead = append(bytes.Clone(p[at:n]), v.all.ahead...)
		if err := v.obey(); err != nil {
			return at, err
		}
		if at > 0 {
			return at, nil
		}
	}
}

// obey reads a mark and does what it says.
func (v *view) obey() error {
	mark, err := v.all.mark()
	if err != nil {
		return err
	}
	switch mark {
	case markSession:
		v.all.ahead = append([]byte(mark), v.all.ahead...) // for next
		v.end()
		return nil
	case markHold:
		return v.all.gate.hold()
	case markProceed:
		return v.all.gate.proceed("")
	default:
		return wire.ErrProtocol
	}
}

// nextMark follows the frames in p and returns where a mark begins, or -1.
func (s *sessions) nextMark(p []byte) int {
	for at := 0; at < len(p); {
		if s.frames.between() && p[at] == markSession[0] {
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
func (v *view) Write(p []byte) (int, error) { return v.all.gate.write(p, v.gone) }

// Close ends the session and, unless it was replaced, the connection.
func (v *view) Close() error {
	if v.gone() {
		return nil
	}
	err := v.all.conn.Close()
	v.all.gate.end()
	return err
}

func (v *view) end() {
	v.mu.Lock()
	v.ended = true
	v.mu.Unlock()
	v.all.gate.wake()
}

func (v *view) gone() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ended
}
