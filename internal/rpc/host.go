package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log" //nolint:depguard // yamux takes one, or writes to standard error
	"time"

	"github.com/hashicorp/yamux"

	"gondolin/internal/wire"
)

// ErrClosed is returned by [Host.Open] after the channel has ended.
var ErrClosed = errors.New("control channel closed")

// Host is the host's end. It opens streams and refuses whatever the guest
// opens. Its methods may be called from any goroutine.
type Host struct {
	session *yamux.Session
	conn    *hostConn
}

// NewHost starts the host's end over conn, which it owns from then on.
func NewHost(conn io.ReadWriteCloser) (*Host, error) {
	c := newHostConn(conn)
	session, err := yamux.Client(c, config(writeTimeout))
	if err != nil {
		return nil, fmt.Errorf("cannot start the control channel: %w", err)
	}
	return &Host{session: session, conn: c}, nil
}

// Open opens a stream and sends m as its first message. It fails with
// [ErrClosed] once the channel has ended, when MaxStreams are open, and with
// ctx's cause when ctx ends while the guest does not take what is sent.
func (h *Host) Open(ctx context.Context, m wire.Message) (*Stream, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if h.session.NumStreams() >= MaxStreams {
		return nil, fmt.Errorf("cannot open a control stream: %d are open", MaxStreams)
	}
	// In a goroutine, which a guest that does not read its port holds up for a few
	// times writeTimeout: yamux knows no contexts.
	results := make(chan opened)
	go h.open(ctx, m, results)
	select {
	case o := <-results:
		return o.stream, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// opened is what came of opening a stream.
type opened struct {
	stream *Stream
	err    error
}

// open opens a stream for whoever reads results, and gives it up if ctx ends first.
func (h *Host) open(ctx context.Context, m wire.Message, results chan<- opened) {
	s, err := h.send(ctx, m)
	select {
	case results <- opened{s, err}:
	case <-ctx.Done():
		if s != nil {
			s.Abort()
		}
	}
}

func (h *Host) send(ctx context.Context, m wire.Message) (*Stream, error) {
	mux, err := h.session.OpenStream()
	if err != nil {
		return nil, h.failure(err)
	}
	s := &Stream{mux: mux}
	stop := context.AfterFunc(ctx, s.Abort) // a message may be larger than the window
	err = wire.Write(s, m)
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		s.Abort()
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

// config is for both ends but for how long a write may take. Keep-alives are
// off: a paused VM is not a dead one, and a dead one closes the port.
func config(writeTimeout time.Duration) *yamux.Config {
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
