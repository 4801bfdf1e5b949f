package rpc

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
)

// past is a deadline that has passed: it ends what is under way.
var past = time.Unix(1, 0)

// Stream is one stream: messages of package wire, then perhaps raw bytes. Its
// methods may be called from any goroutine.
//
//	open --Close--> no more is written --+
//	  |                                  +--Abort--> nothing is written or read
//	  +----------------------------------+
//
// Both sides must close, or abort, a stream to free it.
type Stream struct {
	mux      *yamux.Stream
	replaced func() bool // nil at the host's end

	// reading is held by the one goroutine that reads: two readers in yamux take
	// its two locks of a stream in different orders, and the guest chooses when.
	reading sync.Mutex
	aborted atomic.Bool
}

// Read returns io.EOF once the other side has closed the stream and
// net.ErrClosed once this side has aborted it.
func (s *Stream) Read(p []byte) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.aborted.Load() {
		return 0, net.ErrClosed
	}
	n, err := s.mux.Read(p)
	if s.aborted.Load() {
		return 0, net.ErrClosed
	}
	return n, err
}

// Write blocks while the other side does not read. It returns net.ErrClosed once
// this side has aborted the stream.
func (s *Stream) Write(p []byte) (int, error) {
	n, err := s.mux.Write(p)
	if err != nil && s.aborted.Load() {
		err = net.ErrClosed
	}
	return n, err
}

// Close half-closes: it says that no more will be written; what the other side
// still sends can be read. It blocks while the other side does not take bytes
// from the port, writeTimeout at most.
func (s *Stream) Close() error { return s.mux.Close() }

// Replaced reports, in the guest, whether the stream ended because another host
// began a session: what it was for goes on in a copy of the guest, unattended.
func (s *Stream) Replaced() bool { return s.replaced != nil && s.replaced() }

// SetReadDeadline ends reads from t on.
func (s *Stream) SetReadDeadline(t time.Time) { _ = s.mux.SetReadDeadline(t) } // never fails

// SetWriteDeadline ends, from t on, writes that wait for the other side to read.
func (s *Stream) SetWriteDeadline(t time.Time) { _ = s.mux.SetWriteDeadline(t) } // never fails

// Abort gives the stream up: it half-closes it, ends reads and writes under way,
// and discards what still comes until the other side half-closes too, so that
// nothing is left buffered. It does not block, and is idempotent.
func (s *Stream) Abort() {
	if s.aborted.Swap(true) {
		return
	}
	s.SetReadDeadline(past)
	s.SetWriteDeadline(past)
	go s.discard()
}

func (s *Stream) discard() {
	_ = s.mux.Close()
	s.reading.Lock()
	defer s.reading.Unlock()
	s.SetReadDeadline(time.Time{})
	_, _ = io.Copy(io.Discard, s.mux)
}
