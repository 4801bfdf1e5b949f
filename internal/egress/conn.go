package egress

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"gondolin/internal/netstack"
)

// guestConn is a connection of the guest whose first bytes were already read.
// It is what net/http serves, directly or under TLS.
type guestConn struct {
	netstack.Conn
	flow   netstack.Flow
	scheme string
	host   string                 // the name or address dialled, canonical
	fault  string                 // why no request on it can be allowed; "" if some may
	broken atomic.Pointer[denial] // why a request's body was cut short, and the connection is over

	prefix []byte // bytes read while classifying; only the reader touches it
	once   sync.Once
	closed chan struct{}
}

func newGuestConn(conn netstack.Conn, flow netstack.Flow) *guestConn {
	host := flow.Name
	if host == "" {
		host = flow.Addr.Addr().String()
	}
	return &guestConn{Conn: conn, flow: flow, host: host, scheme: "http", closed: make(chan struct{})}
}

// Read returns what classifying read before it reads on.
func (c *guestConn) Read(p []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(p, c.prefix)
		c.prefix = c.prefix[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// Close closes the connection and lets Serve return.
func (c *guestConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.closed) })
	return err
}

// acceptor is a net.Listener fed by hand. It ends when its context does.
type acceptor struct {
	conns chan net.Conn
	done  <-chan struct{}
}

func newAcceptor(ctx context.Context) *acceptor {
	return &acceptor{conns: make(chan net.Conn), done: ctx.Done()}
}

// hand gives conn to the server, which closes it. It reports false, and keeps
// its hands off conn, once the acceptor has ended.
func (a *acceptor) hand(conn net.Conn) bool {
	select {
	case a.conns <- conn:
		return true
	case <-a.done:
		return false
	}
}

// Accept implements net.Listener.
func (a *acceptor) Accept() (net.Conn, error) {
	select {
	case conn := <-a.conns:
		return conn, nil
	case <-a.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener; the context is what ends it.
func (a *acceptor) Close() error { return nil }

// Addr implements net.Listener.
func (a *acceptor) Addr() net.Addr { return net.TCPAddrFromAddrPort(netstack.DNS) }
