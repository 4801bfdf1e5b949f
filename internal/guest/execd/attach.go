//go:build linux

package execd

import (
	"context"
	"fmt"
	"time"

	"gondolin/internal/rpc"
	"gondolin/internal/wire"
)

// descriptors in the order of their numbers.
var descriptors = [...]wire.Descriptors{wire.Stdin, wire.Stdout, wire.Stderr}

// attachments are a command's data streams, which may come before or after the
// command itself.
type attachments struct {
	arrived chan *attached
	streams map[wire.Descriptors]*rpc.Stream // filled by collect
}

type attached struct {
	descriptor wire.Descriptors
	stream     *rpc.Stream
}

// Attach hands a data stream to the command it names.
func (s *Server) Attach(ctx context.Context, req *wire.Attach, stream *rpc.Stream) {
	select {
	case s.rendezvous(req.ID).arrived <- &attached{req.Descriptor, stream}:
	case <-ctx.Done():
		stream.Abort()
	case <-time.After(attachTimeout):
		s.forget(req.ID)
		stream.Abort()
	}
}

// rendezvous returns where the streams and the command with this id meet.
func (s *Server) rendezvous(id uint64) *attachments {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.waiting[id]
	if a == nil {
		a = &attachments{arrived: make(chan *attached), streams: make(map[wire.Descriptors]*rpc.Stream)}
		if s.waiting == nil {
			s.waiting = make(map[uint64]*attachments)
		}
		s.waiting[id] = a
	}
	return a
}

func (s *Server) forget(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, id)
}

// collect waits for the streams a command asks for. It always returns what came.
func (s *Server) collect(ctx context.Context, req *wire.Exec) (*attachments, error) {
	a := s.rendezvous(req.ID)
	defer s.forget(req.ID)
	timeout := time.NewTimer(attachTimeout)
	defer timeout.Stop()
	for missing := req.Streams; missing != 0; {
		select {
		case in := <-a.arrived:
			if missing&in.descriptor == 0 {
				in.stream.Abort()
				return a, fmt.Errorf("cannot attach descriptor set %#x: not asked for", in.descriptor)
			}
			missing &^= in.descriptor
			a.streams[in.descriptor] = in.stream
		case <-ctx.Done():
			return a, ctx.Err()
		case <-timeout.C:
			return a, fmt.Errorf("cannot start: streams %#x did not come within %v", missing, attachTimeout)
		}
	}
	return a, nil
}

// close gives up every stream that no pump took over.
func (a *attachments) close() {
	for _, stream := range a.streams {
		stream.Abort()
	}
	a.streams = nil
}

// take returns the stream of d, or nil, and hands it to the caller.
func (a *attachments) take(d wire.Descriptors) *rpc.Stream {
	stream := a.streams[d]
	delete(a.streams, d)
	return stream
}
