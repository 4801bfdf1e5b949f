package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// hostConn is a connection as the host's multiplexer sees it: guarded, begun with
// the mark of a session, and with a gate.
type hostConn struct {
	io.Closer
	guard *guard
	gate  *gate
	once  sync.Once

	closed  atomic.Bool   // from Hold to Proceed
	awaited atomic.Bool   // the guest's answer is
	held    chan struct{} // has room for it
}

func newHostConn(conn io.ReadWriteCloser) *hostConn {
	c := &hostConn{Closer: conn, gate: newGate(conn), held: make(chan struct{}, 1)}
	c.guard = &guard{ReadWriteCloser: conn, held: c.answered}
	return c
}

// Read is the guard's.
func (c *hostConn) Read(p []byte) (int, error) { return c.guard.Read(p) }

// Write is called by one goroutine, yamux's.
func (c *hostConn) Write(p []byte) (n int, err error) {
	c.once.Do(func() { _, err = io.WriteString(c.gate.to, markSession) })
	if err != nil {
		return 0, err
	}
	return c.gate.write(p, func() bool { return false })
}

// Close ends what waits at the gate, too.
func (c *hostConn) Close() error {
	err := c.Closer.Close()
	c.gate.end()
	return err
}

// answered notes the guest's answer to a hold, and reports whether one was expected.
func (c *hostConn) answered() bool {
	if !c.awaited.Swap(false) {
		return false
	}
	c.held <- struct{}{} // never blocks: a hold begins only when it is empty
	return true
}

// Hold stops both directions between two frames and returns when nothing is under
// way in either: the guest has taken all that was sent, and the host has all that the
// guest sent. Streams wait until Proceed, which must follow an error as well.
func (h *Host) Hold(ctx context.Context) error {
	if h.conn.closed.Swap(true) {
		return errors.New("cannot hold the control channel: it is being held")
	}
	if h.conn.awaited.Swap(true) {
		return errors.New("cannot hold the control channel: the guest has not answered the time before")
	}
	for len(h.conn.held) > 0 {
		<-h.conn.held // an answer that came too late
	}
	sent := make(chan error, 1)
	go func() { sent <- h.conn.gate.hold() }()
	for {
		select {
		case err := <-sent:
			if err != nil {
				return fmt.Errorf("cannot hold the control channel: %w", h.failure(err))
			}
			sent = nil
		case <-h.conn.held:
			return nil
		case <-h.Done():
			return ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("cannot hold the control channel: %w", context.Cause(ctx))
		}
	}
}

// Proceed lets the streams of a held channel go on, at both ends. One that is not
// held stays as it is.
func (h *Host) Proceed() error {
	err := h.conn.gate.proceed(markProceed)
	h.conn.closed.Store(false)
	if err != nil {
		return fmt.Errorf("cannot go on with the control channel: %w", h.failure(err))
	}
	return nil
}
