package control

import (
	"context"
	"fmt"

	"gondolin/internal/rpc"
	"gondolin/internal/wire"
)

// Suspension is a guest at rest: its commands stand still, and nothing is under way
// between it and the host but Ethernet frames.
type Suspension struct {
	client *Client
	stream *rpc.Stream
}

// Suspend brings the guest to rest, so that its machine can be copied. Until
// Proceed nothing else is sent or received on the channel. A guest that cannot come to
// rest goes on as before.
func (c *Client) Suspend(ctx context.Context) (*Suspension, error) {
	s, err := c.host.Open(ctx, &wire.Suspend{})
	if err != nil {
		return nil, fmt.Errorf("cannot suspend the guest: %w", err)
	}
	m, err := c.read(ctx, s)
	if err == nil {
		switch m := m.(type) {
		case *wire.Suspended:
			err = c.host.Hold(ctx)
		case *wire.Failed:
			err = m
		default:
			err = fmt.Errorf("%w: %T instead of Suspended", wire.ErrProtocol, m)
		}
	}
	suspension := &Suspension{client: c, stream: s}
	if err != nil {
		suspension.Proceed() //nolint:errcheck // it fails already
		return nil, fmt.Errorf("cannot suspend the guest: %w", c.cause(err))
	}
	return suspension, nil
}

// Proceed lets the guest go on. It does not wait for the guest to have read so.
func (s *Suspension) Proceed() error {
	defer s.stream.Abort()
	if err := s.client.host.Proceed(); err != nil {
		return err
	}
	if err := wire.Write(s.stream, &wire.Proceed{}); err != nil {
		return fmt.Errorf("cannot let the guest go on: %w", s.client.cause(err))
	}
	return nil
}

// Resume makes a copy of a guest that was suspended a VM of its own. It must come first.
func (c *Client) Resume(ctx context.Context, resume wire.Resume) (*wire.Ready, error) {
	s, err := c.host.Open(ctx, &resume)
	if err != nil {
		return nil, fmt.Errorf("cannot resume the guest: %w", err)
	}
	defer s.Abort()
	m, err := c.read(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("cannot resume the guest: %w", err)
	}
	switch m := m.(type) {
	case *wire.Ready:
		return m, nil
	case *wire.Failed:
		return nil, fmt.Errorf("cannot resume the guest: %w", m)
	default:
		return nil, fmt.Errorf("cannot resume the guest: %w: unexpected %T", wire.ErrProtocol, m)
	}
}
