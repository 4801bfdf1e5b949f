package egress

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync/atomic"

	"gondolin/internal/audit"
	"gondolin/internal/netstack"
	"gondolin/internal/netstack/pcapng"
	"gondolin/policy"
)

// Resolver finds addresses; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Dialer connects to an address that was checked. network is "tcp".
type Dialer func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error)

// Config describes a Gateway. The zero Config denies everything.
type Config struct {
	// Policy is what may be reached. Zero: nothing.
	Policy policy.Network
	// Audit gets every name query, connection and request. Nil: no record.
	// When an event cannot be written, no further request is allowed.
	Audit *audit.Log
	// Capture gets the guest's frames as pcapng. Nil: none.
	Capture io.Writer
	// Logger is for debugging. Nil: discarded.
	Logger *slog.Logger
	// Resolver resolves names on the host. Nil: the system's.
	Resolver Resolver
	// Dialer connects upstream. Nil: a net.Dialer.
	Dialer Dialer
	// RootCAs verify upstream servers. Nil: the system's.
	RootCAs *x509.CertPool
	// HostAddrs returns the host's own addresses, which are internal wherever
	// they lie. Nil: those of its interfaces.
	HostAddrs func() ([]netip.Addr, error)
	// Continue is what a guest that is a copy of another knows. Nil: nothing.
	Continue *Continue
}

// Gateway is one sandbox's way out. It holds secret values and prints none.
type Gateway struct {
	engine   *policy.Engine
	vault    *vault
	ca       *authority
	names    *netstack.Names                 // outlives a Run: the guest remembers addresses
	lost     []netstack.Flow                 // the guest takes for open
	stack    *atomic.Pointer[netstack.Stack] // of the last Run
	audit    *audit.Log
	capture  *pcapng.Writer // outlives a Run
	logger   *slog.Logger
	resolver Resolver
	dialer   Dialer
	roots    *x509.CertPool
	hostNets func() ([]netip.Addr, error)
	numbers  *atomic.Uint64 // requests so far
}

// New checks the policy, and makes the sandbox's CA and placeholders. It
// starts nothing.
func New(cfg Config) (*Gateway, error) {
	engine, err := policy.Compile(cfg.Policy)
	if err != nil {
		return nil, fmt.Errorf("cannot use the network policy: %w", err)
	}
	from := cfg.Continue.orNothing()
	v, err := newVault(engine, from.Placeholders)
	if err != nil {
		return nil, err
	}
	ca, err := from.authority()
	if err != nil {
		return nil, err
	}
	names, err := netstack.NamesOf(from.Names)
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		engine: engine, vault: v, ca: ca, names: names, lost: from.flows(), stack: new(atomic.Pointer[netstack.Stack]), audit: cfg.Audit, numbers: new(atomic.Uint64), logger: cfg.Logger,
		resolver: cfg.Resolver, dialer: cfg.Dialer, roots: cfg.RootCAs, hostNets: cfg.HostAddrs,
	}
	cfg.Audit.Redact(v.values()...)
	if g.logger == nil {
		g.logger = slog.New(slog.DiscardHandler)
	}
	g.capture = pcapng.NewWriter(cfg.Capture, g.logger)
	if g.resolver == nil {
		g.resolver = systemResolver{}
	}
	if g.dialer == nil {
		g.dialer = systemDial
	}
	if g.hostNets == nil {
		g.hostNets = interfaceAddrs
	}
	return g, nil
}

// Env returns the environment variables of the guest that hold placeholders.
func (g *Gateway) Env() map[string]string { return maps.Clone(g.vault.env) }

// CACertPEM returns the certificate the guest has to trust.
func (g *Gateway) CACertPEM() []byte { return g.ca.pem() }

// Run serves the guest at the other end of conn, in QEMU's stream framing,
// until conn ends or ctx is done, both of which are no error. It owns conn and
// closes it. When it returns, all connections are closed, upstream ones too, and
// it may be called again for the same guest.
func (g *Gateway) Run(ctx context.Context, conn io.ReadWriteCloser) error {
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := newSession(ctx, g)
	stack, err := netstack.New(netstack.Config{
		Handler: s, Names: g.names, Lost: g.lost, OnDNS: g.recordDNS, Capture: g.capture, Logger: g.logger,
	})
	if err != nil {
		return err
	}
	g.stack.Store(stack)
	served := make(chan error, 1)
	go s.serveHTTP(served)
	err = stack.Run(ctx, conn)
	cancel() // ends the acceptor, the requests and the upstream connections
	s.close()
	return errors.Join(err, <-served)
}

func (g *Gateway) recordDNS(q netstack.DNSQuery) {
	e := audit.Event{Kind: audit.DNS, Decision: audit.Allow, Name: q.Name, Type: q.Type, Reason: q.Result}
	if q.Addr.IsValid() {
		e.Address = q.Addr.String()
	}
	if q.Result != "NOERROR" {
		e.Decision = audit.Deny
	}
	g.record(e)
}

// record writes an event. A failure stays in the log, whose Err stops further
// requests.
func (g *Gateway) record(e audit.Event) {
	failed := g.audit.Err() != nil
	if err := g.audit.Record(e); err != nil && !failed { // the first says it all
		g.logger.Error("audit event lost", "error", err)
	}
}
