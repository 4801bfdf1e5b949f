package rpc

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/yamux"

	"gondolin/internal/wire"
)

// Handler serves one stream of the host. It owns s and must abort it, or close
// it and read it to the end.
type Handler func(ctx context.Context, first wire.Message, s *Stream)

// Serve is the guest's end: it calls handle, in a goroutine of its own, for
// each stream the host opens over conn, which Serve owns. It returns when conn
// ends or ctx is done; the handlers' ctx is then done too.
func Serve(ctx context.Context, conn io.ReadWriteCloser, handle Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	session, err := yamux.Server(conn, config(guestWriteTimeout))
	if err != nil {
		return fmt.Errorf("cannot start the control channel: %w", err)
	}
	defer session.Close()
	stop := context.AfterFunc(ctx, func() { session.Close() })
	defer stop()
	for {
		s, err := session.AcceptStream()
		if err != nil {
			return fmt.Errorf("control channel ended: %w", err)
		}
		go serveStream(ctx, &Stream{mux: s}, handle)
	}
}

func serveStream(ctx context.Context, s *Stream, handle Handler) {
	s.SetReadDeadline(time.Now().Add(headTimeout))
	first, err := wire.Read(s, wire.ToGuest)
	if err != nil {
		_ = wire.Write(s, wire.Failure(wire.ReasonOther, "cannot read the request: "+err.Error()))
		s.Abort()
		return
	}
	s.SetReadDeadline(time.Time{})
	handle(ctx, first, s)
}
