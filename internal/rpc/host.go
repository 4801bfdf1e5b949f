package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log" //nolint:depguard // yamux takes one, or writes to standard error
	"net"

	"github.com/hashicorp/yamux"

	"gondolin/internal/wire"
)

// ErrClosed is returned by [Host.Open] after the channel has ended.
var ErrClosed = errors.New("control channel closed")

// Stream is one stream: messages of package wire, then perhaps raw bytes.
// Close half-closes: it says that no more will be written; what the other side
// still sends can be read. Both halves must be closed to free it.
type Stream = net.Conn

// Host is the host's end. It opens streams and refuses whatever the guest
// opens. Its methods may be called from any goroutine.
type Host struct {
	session *yamux.Session
}

// NewHost starts the host's end over conn, which it owns from then on.
func NewHost(conn io.ReadWriteCloser) (*Host, error) {
	session, err := yamux.Client(&guard{ReadWriteCloser: &greeter{ReadWriteCloser: conn}}, config())
	if err != nil {
		return nil, fmt.Errorf("cannot start the control channel: %w", err)
	}
	return &Host{session: session}, nil
}

// Open opens a stream and sends m as its first message. It fails with
// [ErrClosed] once the channel has ended and when MaxStreams are open.
func (h *Host) Open(ctx context.Context, m wire.Message) (Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if h.session.NumStreams() >= MaxStreams {
		return nil, fmt.Errorf("cannot open a control stream: %d are open", MaxStreams)
	}
	s, err := h.session.OpenStream()
	if err != nil {
		return nil, h.failure(err)
	}
	if err := wire.Write(s, m); err != nil {
		Abort(s)
		return nil, h.failure(err)
	}
	return s, nil
}

// Done is closed when the channel has ended.
func (h *Host) Done() <-chan struct{} { return h.session.CloseChan() }

// Close ends the channel and every stream on it.
func (h *Host) Close() error { return h.session.Close() }

func (h *Host) failure(err error) error {
	if h.session.IsClosed() || errors.Is(err, yamux.ErrSessionShutdown) {
		return ErrClosed
	}
	return err
}

// Abort gives a stream up: it half-closes it and discards what still comes,
// until the other side half-closes too, so that nothing is left buffered.
func Abort(s Stream) {
	_ = s.Close()
	go discard(s)
}

func discard(s Stream) { _, _ = io.Copy(io.Discard, s) }

// config is the same on both ends. Keep-alives are off: a paused VM is not a
// dead one, and a dead one closes the port.
func config() *yamux.Config {
	c := yamux.DefaultConfig()
	c.AcceptBacklog = MaxStreams
	c.EnableKeepAlive = false
	c.ConnectionWriteTimeout = writeTimeout
	c.MaxStreamWindowSize = window
	c.StreamOpenTimeout = 0  // a booting guest answers when it is up
	c.StreamCloseTimeout = 0 // a half-closed stdin may be read for hours
	c.LogOutput = nil
	c.Logger = log.New(io.Discard, "", 0)
	return c
}
