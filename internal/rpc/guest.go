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
// each stream a host opens over conn, which Serve owns. A host that begins a new
// session ends the streams of the one before. Serve returns when conn ends or ctx
// is done; the handlers' ctx is then done too.
func Serve(ctx context.Context, conn io.ReadWriteCloser, handle Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	all := &sessions{conn: conn, gate: newGate(conn)}
	for {
		v, err := all.next()
		if err != nil {
			return fmt.Errorf("control channel ended: %w", err)
		}
		if err := serveSession(ctx, v, handle); !v.gone() {
			return fmt.Errorf("control channel ended: %w", err)
		}
	}
}

// serveSession serves one session until it ends.
func serveSession(ctx context.Context, v *view, handle Handler) error {
	session, err := yamux.Server(v, config(guestWriteTimeout))
	if err != nil {
		return err
	}
	defer session.Close()
	for {
		s, err := session.AcceptStream()
		if err != nil {
			return err
		}
		go serveStream(ctx, &Stream{mux: s, replaced: v.gone}, handle)
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
