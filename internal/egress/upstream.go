package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gondolin/internal/audit"
)

// systemResolver asks the system for exactly the name: no search domains for
// names that have a dot.
type systemResolver struct{}

func (systemResolver) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if strings.Contains(host, ".") {
		host += "."
	}
	return net.DefaultResolver.LookupNetIP(ctx, network, host)
}

func systemDial(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, addr.String())
}

func interfaceAddrs() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("cannot list the host's addresses: %w", err)
	}
	var addrs []netip.Addr
	for _, a := range list {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			addrs = append(addrs, prefix.Addr().Unmap())
		}
	}
	return addrs, nil
}

// upstream speaks HTTP to the outside. Connections are pooled by scheme, host
// and port, and each leads to an address that was checked for that host.
type upstream struct {
	*http.Transport
	h2c     *http.Transport // HTTP/2 without TLS, for guests that speak it so
	gateway *Gateway
	ended   <-chan struct{}

	slots chan struct{} // a token for each connection open or being made

	mu    sync.Mutex // guards conns
	conns map[*upstreamConn]struct{}
}

func newUpstream(ctx context.Context, g *Gateway) *upstream {
	u := &upstream{gateway: g, ended: ctx.Done(), slots: make(chan struct{}, maxUpstream), conns: make(map[*upstreamConn]struct{})}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	u.Transport = &http.Transport{
		Proxy:                  nil, // never from the environment
		DialContext:            u.dial,
		TLSClientConfig:        &tls.Config{RootCAs: g.roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    handshakeTimeout,
		DisableCompression:     true, // bytes and headers stay as they are
		MaxIdleConns:           maxIdleUpstream,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		MaxConnsPerHost:        maxUpstreamPerHost,
		IdleConnTimeout:        upstreamIdle,
		ExpectContinueTimeout:  continueTimeout,
		MaxResponseHeaderBytes: maxResponseHead,
		Protocols:              protocols,
	}
	u.h2c = u.Transport.Clone()
	u.h2c.Protocols = new(http.Protocols)
	u.h2c.Protocols.SetUnencryptedHTTP2(true)
	return u
}

// send speaks HTTP/2 over TLS where the server does, and without TLS where the
// guest did; there is no other way to know (RFC 9113 section 3.3).
func (u *upstream) send(r *http.Request, x *exchange) (*http.Response, error) {
	if x.h2c && r.URL.Scheme == "http" {
		return u.h2c.RoundTrip(r)
	}
	return u.RoundTrip(r)
}

// upstreamConn is known to its upstream until it is closed.
type upstreamConn struct {
	net.Conn
	owner *upstream
}

// Close closes the connection and forgets it.
func (c *upstreamConn) Close() error {
	c.owner.mu.Lock()
	_, known := c.owner.conns[c]
	delete(c.owner.conns, c)
	c.owner.mu.Unlock()
	err := c.Conn.Close()
	if known {
		<-c.owner.slots
	}
	return err
}

// close closes every connection, idle or in use.
func (u *upstream) close() {
	u.CloseIdleConnections()
	u.h2c.CloseIdleConnections()
	u.mu.Lock()
	open := make([]*upstreamConn, 0, len(u.conns))
	for c := range u.conns {
		open = append(open, c)
	}
	u.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
}

// dial connects if there is room. Transport goes on dialling for a request that
// has ended, so the bound on the guest's connections is none on these.
func (u *upstream) dial(ctx context.Context, network, address string) (net.Conn, error) {
	select {
	case u.slots <- struct{}{}:
	default:
		return nil, fmt.Errorf("cannot dial %s: %d connections are open or being made", address, maxUpstream)
	}
	conn, err := u.dialChecked(ctx, network, address)
	if err != nil {
		<-u.slots
		return nil, err
	}
	return conn, nil
}

// dialChecked resolves, checks and connects. The address has a canonical host.
// The connection gives the caller's slot back when it is closed.
func (u *upstream) dialChecked(ctx context.Context, network, address string) (*upstreamConn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go cancelWhen(ctx, u.ended, cancel)
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("cannot dial %q: %w", address, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("cannot dial %q: %w", address, err)
	}
	addrs, rule, err := u.checkedAddrs(ctx, host)
	event := audit.Event{Kind: audit.Connection, Decision: audit.Deny, Host: host, Port: int(port), Rule: rule}
	if err != nil {
		event.Reason = err.Error()
		if d := asDenial(err); d != nil {
			event.Code = string(d.code)
		}
		u.gateway.record(event)
		return nil, err
	}
	event.Decision = audit.Allow
	var faults []error
	for _, addr := range addrs[:min(len(addrs), maxAddresses)] {
		conn, err := u.dialOne(ctx, network, netip.AddrPortFrom(addr, uint16(port)))
		event.Address, event.Reason = addr.String(), ""
		if err != nil {
			event.Reason = err.Error()
			faults = append(faults, err)
		}
		u.gateway.record(event)
		if broken := u.gateway.audit.Err(); err == nil && broken != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("cannot record the connection: %w", broken)
		}
		if err == nil {
			return conn, nil
		}
	}
	return nil, errors.Join(faults...)
}

// cancelWhen cancels when ended is closed; it ends with ctx.
func cancelWhen(ctx context.Context, ended <-chan struct{}, cancel context.CancelFunc) {
	select {
	case <-ended:
		cancel()
	case <-ctx.Done():
	}
}

func (u *upstream) dialOne(ctx context.Context, network string, addr netip.AddrPort) (*upstreamConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := u.gateway.dialer(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := &upstreamConn{Conn: conn, owner: u}
	u.mu.Lock()
	defer u.mu.Unlock()
	select {
	case <-u.ended: // close may have run already
		_ = conn.Close()
		return nil, errors.New("cannot connect: the sandbox is closing")
	default:
		u.conns[c] = struct{}{}
		return c, nil
	}
}

// checkedAddrs returns the addresses of a host if all of them may be reached.
// One that may not spoils the rest: a name that leads inside as well as outside
// is not to be trusted with a choice.
func (u *upstream) checkedAddrs(ctx context.Context, host string) (addrs []netip.Addr, rule string, err error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	if literal, err := netip.ParseAddr(host); err == nil {
		addrs = []netip.Addr{literal}
	} else if addrs, err = u.gateway.resolver.LookupNetIP(ctx, "ip", host); err != nil {
		return nil, "", fmt.Errorf("cannot resolve host %s: %w", host, err)
	}
	if len(addrs) == 0 || len(addrs) > maxResolved {
		return nil, "", fmt.Errorf("cannot use host %s: it has %d addresses", host, len(addrs))
	}
	own, err := u.gateway.hostNets()
	if err != nil {
		return nil, "", err
	}
	for i, addr := range addrs {
		addrs[i] = addr.Unmap()
		decision := u.gateway.engine.Address(host, addrs[i])
		if decision.Allowed && slices.Contains(own, addrs[i]) {
			decision = u.gateway.engine.ExemptInternal(host, addrs[i])
		}
		if !decision.Allowed {
			return nil, "", refusal(decision)
		}
		rule = decision.Rule
	}
	return addrs, rule, nil
}

// elapsed is a duration in the audit log's unit.
func elapsed(since time.Time) int64 { return time.Since(since).Milliseconds() }
