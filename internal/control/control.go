// Package control is the host's side of the control channel: it sets a booted
// guest up and runs commands in it. Its guest twins are the packages below
// internal/guest.
package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"gondolin/internal/rpc"
	"gondolin/internal/wire"
)

// ErrClosed is returned for what was under way, or comes after, when the
// channel to the guest has ended.
var ErrClosed = rpc.ErrClosed

// Client speaks to one guest. Its methods may be called from any goroutine.
type Client struct {
	host *rpc.Host
}

// New starts the control channel over conn, which it owns. It may be called
// before the guest has booted: what is sent waits in the port.
func New(conn io.ReadWriteCloser) (*Client, error) {
	host, err := rpc.NewHost(conn)
	if err != nil {
		return nil, err
	}
	return &Client{host: host}, nil
}

// Done is closed when the channel has ended.
func (c *Client) Done() <-chan struct{} { return c.host.Done() }

// Close ends the channel; everything under way fails with [ErrClosed].
func (c *Client) Close() error { return c.host.Close() }

// Setup makes the guest this VM, waiting for it to boot. It fails when ctx is
// done, when the guest refuses a step, and when its protocol version differs.
func (c *Client) Setup(ctx context.Context, setup wire.Setup) (*wire.Ready, error) {
	setup.Version = wire.Version
	s, err := c.host.Open(ctx, &setup)
	if err != nil {
		return nil, fmt.Errorf("cannot set the guest up: %w", err)
	}
	defer s.Abort()
	m, err := c.read(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("cannot set the guest up: %w", err)
	}
	switch m := m.(type) {
	case *wire.Ready:
		if m.Version != wire.Version {
			return nil, fmt.Errorf("cannot set the guest up: it speaks protocol version %d, this host %d", m.Version, wire.Version)
		}
		return m, nil
	case *wire.Failed:
		return nil, fmt.Errorf("cannot set the guest up: %w", m)
	default:
		return nil, fmt.Errorf("cannot set the guest up: %w: unexpected %T", wire.ErrProtocol, m)
	}
}

// Quiesce waits for the guest to boot and leaves nothing under way in either
// direction, so that the machine can be stopped and copied. It must come before
// Setup, and the channel must not be used afterwards.
//
// expect is what is known of the setups to come.
func (c *Client) Quiesce(ctx context.Context, expect wire.Quiesce) error {
	s, err := c.host.Open(ctx, &expect)
	if err != nil {
		return fmt.Errorf("cannot quiesce the guest: %w", err)
	}
	defer s.Abort()
	s.Close()
	m, err := c.read(ctx, s)
	if err != nil {
		return fmt.Errorf("cannot quiesce the guest: %w", err)
	}
	if _, ok := m.(*wire.Quiesced); !ok {
		return fmt.Errorf("cannot quiesce the guest: %w: %T instead of Quiesced", wire.ErrProtocol, m)
	}
	if n, err := s.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("cannot quiesce the guest: %w: the stream goes on", wire.ErrProtocol)
	}
	return nil
}

// SetClock sets the guest's wall clock to now, give or take the time the message takes.
func (c *Client) SetClock(ctx context.Context, now time.Time) error {
	s, err := c.host.Open(ctx, &wire.Clock{Time: now.UnixNano()})
	if err != nil {
		return fmt.Errorf("cannot set the guest's clock: %w", err)
	}
	defer s.Abort()
	s.Close()
	stop := context.AfterFunc(ctx, s.Abort)
	m, err := wire.Read(s, wire.ToHost)
	switch {
	case !stop():
		err = context.Cause(ctx)
	case errors.Is(err, io.EOF):
		return nil
	case err == nil:
		err = fmt.Errorf("%w: %T", wire.ErrProtocol, m)
		if f, ok := m.(*wire.Failed); ok {
			err = f
		}
	}
	return fmt.Errorf("cannot set the guest's clock: %w", c.cause(err))
}

// read reads one message; when ctx ends first, it aborts the stream and returns ctx's cause.
func (c *Client) read(ctx context.Context, s *rpc.Stream) (wire.Message, error) {
	stop := context.AfterFunc(ctx, s.Abort)
	m, err := wire.Read(s, wire.ToHost)
	if !stop() {
		return nil, context.Cause(ctx)
	}
	return m, c.cause(err)
}

// cause makes the end of the whole channel recognisable in the error of one stream.
func (c *Client) cause(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-c.Done():
		return ErrClosed
	default:
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: stream ended early", wire.ErrProtocol)
	}
	return err
}

// newID returns an id for a command. Ids only need to differ among the commands
// starting at one time; the guest cannot choose them.
func newID() uint64 { return rand.Uint64() }
