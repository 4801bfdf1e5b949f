package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"gondolin/internal/audit"
	"gondolin/internal/netstack"
	"gondolin/policy"
)

// session is a Gateway while it runs: everything here ends with Run.
type session struct {
	*Gateway
	accept   *acceptor
	server   *http.Server
	upstream *upstream
	proxy    http.Handler

	mu       sync.Mutex     // guards ended, and orders it with requests.Add
	ended    bool           // no request may begin
	requests sync.WaitGroup // running requests
	running  atomic.Int64   // how many
}

var _ netstack.Handler = (*session)(nil)

type connKey struct{}

func newSession(ctx context.Context, g *Gateway) *session {
	s := &session{Gateway: g, accept: newAcceptor(ctx), upstream: newUpstream(ctx, g)}
	s.proxy = newProxy(s)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true) // with prior knowledge (RFC 9113 section 3.3)
	s.server = &http.Server{
		Handler:                      http.HandlerFunc(s.serveRequest),
		ReadHeaderTimeout:            headerTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxRequestHead,
		DisableGeneralOptionsHandler: true,
		Protocols:                    protocols,
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerStream: streamWindow},
		ErrorLog:                     slog.NewLogLogger(g.logger.Handler(), slog.LevelDebug),
		BaseContext:                  func(net.Listener) context.Context { return ctx },
		ConnContext:                  withGuestConn,
	}
	return s
}

// withGuestConn lets requests find the connection they came on.
func withGuestConn(ctx context.Context, conn net.Conn) context.Context {
	switch c := conn.(type) {
	case *headGuard:
		conn = c.guest
	case *tls.Conn:
		conn = c.NetConn()
	}
	return context.WithValue(ctx, connKey{}, conn)
}

func (s *session) serveHTTP(result chan<- error) {
	err := s.server.Serve(s.accept)
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		err = nil
	}
	result <- err
}

// close ends what cancelling did not, and waits for all requests.
func (s *session) close() {
	_ = s.server.Close() // its error is that of closing connections that are closed already
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.upstream.close()
	s.requests.Wait()
	s.upstream.close() // what a request that was ending still opened
}

// begin counts a request in; false once the session has ended.
func (s *session) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.requests.Add(1)
	return true
}

// Admit implements netstack.Handler. Ports 80 and 443 are always answered, so
// that the guest gets to read why its request is refused.
func (s *session) Admit(flow netstack.Flow) error {
	port := int(flow.Addr.Port())
	reason := ""
	switch {
	case flow.Name == "" && netstack.Synthetic.Contains(flow.Addr.Addr()):
		reason = "the address stands for no name"
	case port != 80 && port != 443 && !s.engine.PortAllowed(port):
		reason = "no rule allows this port"
	}
	if reason == "" {
		return nil
	}
	s.refuse(flow, reason)
	return errors.New(reason)
}

func (s *session) refuse(flow netstack.Flow, reason string) {
	s.record(audit.Event{
		Kind: audit.Connection, Decision: audit.Deny, Reason: reason,
		Name: flow.Name, Address: flow.Addr.Addr().String(), Port: int(flow.Addr.Port()),
	})
}

// Serve implements netstack.Handler: it finds out what the guest speaks and
// hands the connection to the HTTP server, or resets it.
func (s *session) Serve(_ context.Context, conn netstack.Conn, flow netstack.Flow) {
	c := newGuestConn(conn, flow)
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(peekTimeout)) // a dead connection fails in peek
	kind, first, err := peek(c)
	c.prefix = first
	if kind == protocolOther {
		if len(first) > 0 || err == nil || isTimeout(err) {
			reason := "not HTTP or TLS"
			if len(first) == 0 {
				reason = "the guest sent nothing: protocols in which the server speaks first are not supported"
			}
			s.refuse(flow, reason)
		}
		c.Reset()
		return
	}
	var served net.Conn = c
	if kind == protocolTLS {
		served, err = s.terminate(c)
		if err != nil {
			s.refuse(flow, "TLS handshake failed: "+err.Error())
			return
		}
	}
	_ = c.SetDeadline(time.Time{})
	if t, ok := served.(*tls.Conn); !ok || t.ConnectionState().NegotiatedProtocol != "h2" {
		served = newHeadGuard(served, c, func(d *denial) { s.recordBody(c, d) })
		_ = c.SetReadDeadline(time.Now().Add(headerTimeout)) // net/http sets its own after the first bytes
	}
	if s.accept.hand(served) {
		<-c.closed
	}
}

// recordBody records a body that was refused for its framing.
func (s *session) recordBody(c *guestConn, d *denial) {
	s.record(audit.Event{
		Kind: audit.Request, Decision: audit.Deny, Code: string(d.code), Reason: d.reason,
		Scheme: c.scheme, Host: c.host, Port: int(c.flow.Addr.Port()),
	})
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// terminate completes the TLS handshake as the server the guest wants. A name
// that disagrees with the flow is noted: the guest reads why in its response.
func (s *session) terminate(c *guestConn) (*tls.Conn, error) {
	_ = c.SetDeadline(time.Now().Add(handshakeTimeout)) // a dead connection fails in the handshake
	conn := tls.Server(c, &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		// Tickets would let a session for one name be resumed on a
		// connection for another.
		SessionTicketsDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.leafFor(c, hello.ServerName)
		},
	})
	if err := conn.Handshake(); err != nil { //nolint:noctx // bounded by the deadline; cancelling resets the connection
		return nil, err
	}
	c.scheme = "https"
	return conn, nil
}

func (s *session) leafFor(c *guestConn, sni string) (*tls.Certificate, error) {
	name := c.host
	if sni != "" {
		var err error
		if name, err = policy.CanonicalHost(sni); err != nil {
			return nil, err
		}
	}
	if name != c.host {
		c.fault = "the TLS server name " + name + " is not the host " + c.host + " the connection went to"
	}
	return s.ca.leaf(name)
}
