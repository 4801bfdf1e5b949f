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
