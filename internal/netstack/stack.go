package netstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"gondolin/internal/netstack/ethlink"
	"gondolin/internal/netstack/pcapng"
)

const nic = tcpip.NICID(1)

// Flow says what a connection of the guest is for.
type Flow struct {
	// Name is the name the guest resolved to the address it dialled, lower
	// case without a final dot; "" if it dialled an address of its own choice.
	Name string
	// Addr is the address and port the guest dialled.
	Addr netip.AddrPort
	// Guest is the guest's end.
	Guest netip.AddrPort
}

// Conn is a connection with the guest.
type Conn interface {
	net.Conn
	// CloseWrite ends the stream towards the guest and keeps reading.
	CloseWrite() error
	// Reset drops the connection with RST instead of FIN.
	Reset()
}

// Handler gets the guest's TCP connections. Its methods are called
// concurrently.
type Handler interface {
	// Admit decides before the handshake: an error answers the guest's SYN
	// with RST, "connection refused". It must not block.
	Admit(flow Flow) error
	// Serve owns conn and closes it. ctx ends with the stack.
	Serve(ctx context.Context, conn Conn, flow Flow)
}

// Config describes a Stack.
type Config struct {
	Handler Handler
	// Names are the addresses the guest was told. Nil: none yet.
	Names *Names
	// Lost are connections that the guest, a copy of another, takes for open. It is
	// told that they are not.
	Lost []Flow
	// OnDNS is called with every question and its answer. Nil: nobody asks.
	OnDNS func(DNSQuery)
	// Capture gets every frame of the guest, and to it. Nil: nobody looks.
	Capture *pcapng.Writer
	// Logger gets what is worth knowing when debugging. Nil discards it.
	Logger *slog.Logger
}

// Stack is one sandbox's network. Run it once.
type Stack struct {
	handler Handler
	onDNS   func(DNSQuery)
	logger  *slog.Logger
	link    *ethlink.Link
	stack   *stack.Stack
	names   *Names
	lost    []Flow

	dnsConns chan struct{} // a token for each DNS connection over TCP

	mu      sync.Mutex // guards the fields below
	flows   int
	serve   context.Context //nolint:containedctx // the life of Run, for a callback of gVisor that brings none
	handled sync.WaitGroup  // accept calls; Add only while serve is live
}

// New returns a stack that carries nothing until Run.
func New(cfg Config) (*Stack, error) {
	if cfg.Handler == nil {
		return nil, errors.New("cannot make a network stack: there is no handler")
	}
	s := &Stack{
		handler:  cfg.Handler,
		names:    cfg.Names,
		lost:     cfg.Lost,
		onDNS:    cfg.OnDNS,
		logger:   cfg.Logger,
		dnsConns: make(chan struct{}, maxDNSConns),
	}
	link := ethlink.Config{MAC: GatewayMAC(), MTU: MTU, Admit: admit}
	if cfg.Capture != nil {
		link.Received, link.Sent = cfg.Capture.FromGuest, cfg.Capture.ToGuest
	}
	s.link = ethlink.New(link)
	if s.names == nil {
		s.names = new(Names)
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	if s.onDNS == nil {
		s.onDNS = func(DNSQuery) {}
	}
	return s, nil
}

// Run carries the guest's traffic until conn ends or ctx is done, both of
// which are no error. It owns conn and closes it. When it returns, every
// connection is closed and every Handler call has returned.
func (s *Stack) Run(ctx context.Context, conn io.ReadWriteCloser) error {
	defer conn.Close()
	if err := s.open(); err != nil {
		return err
	}
	dns, err := s.listenDNS()
	if err != nil {
		s.stack.Destroy()
		return err
	}
	group, inner := errgroup.WithContext(ctx)
	s.mu.Lock()
	s.serve = inner
	s.mu.Unlock()

	group.Go(func() error {
		if err := s.link.Run(inner, conn); err != nil {
			return err
		}
		return errLinkEnded // ends the other parts
	})
	group.Go(func() error { return s.serveUDP(inner, dns) })
	group.Go(func() error { return s.endLost(inner, s.lost) })
	err = group.Wait()
	s.close()
	if errors.Is(err, errLinkEnded) || ctx.Err() != nil {
		return nil
	}
	return err
}

var errLinkEnded = errors.New("the link ended")

// close refuses new flows, aborts the open ones, and waits for all of it.
func (s *Stack) close() {
	s.mu.Lock()
	s.serve = nil
	s.mu.Unlock()
	done := make(chan struct{})
	go s.awaitHandled(done)
	for ended := false; !ended; {
		// Handlers' reads and writes fail. Again and again, since a handshake
		// that was about to begin makes its endpoint after this.
		for _, e := range s.stack.RegisteredEndpoints() {
			e.Abort()
		}
		select {
		case <-done:
			ended = true
		case <-time.After(abortInterval):
		}
	}
	s.stack.Destroy()
}

func (s *Stack) awaitHandled(done chan<- struct{}) {
	s.handled.Wait()
	close(done)
}

// open builds the gVisor stack, whose goroutines live until close.
func (s *Stack) open() error {
	s.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	if err := s.configure(); err != nil {
		s.stack.Destroy()
		return fmt.Errorf("cannot set up the network stack: %w", err)
	}
	forwarder := tcp.NewForwarder(s.stack, bufferDefault, maxHalfOpen, s.accept)
	s.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, forwarder.HandlePacket)
	return nil
}

func (s *Stack) configure() error {
	gateway := tcpip.AddrFrom4(Gateway.As4())
	guest := tcpip.AddrFrom4(GuestAddr.Addr().As4())
	steps := []struct {
		what string
		do   func() tcpip.Error
	}{
		{"TCP", s.configureTCP},
		{"network card", func() tcpip.Error { return s.stack.CreateNIC(nic, s.link.Endpoint()) }},
		{"gateway address", func() tcpip.Error {
			return s.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{
				Protocol:          ipv4.ProtocolNumber,
				AddressWithPrefix: tcpip.AddressWithPrefix{Address: gateway, PrefixLen: GuestAddr.Bits()},
			}, stack.AddressProperties{})
		}},
		// Every address ends here, and is answered from.
		{"promiscuous mode", func() tcpip.Error { return s.stack.SetPromiscuousMode(nic, true) }},
		{"spoofing", func() tcpip.Error { return s.stack.SetSpoofing(nic, true) }},
		// The guest's address is fixed: nobody can move it, and nobody asks.
		{"guest neighbour", func() tcpip.Error {
			return s.stack.AddStaticNeighbor(nic, ipv4.ProtocolNumber, guest, tcpip.LinkAddress(GuestMAC()))
		}},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %s", step.what, err)
		}
	}
	s.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	return nil
}

func (s *Stack) configureTCP() tcpip.Error {
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	congestion := tcpip.CongestionControlOption("reno")
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: bufferMin, Default: bufferDefault, Max: bufferMax}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: bufferMin, Default: bufferDefault, Max: bufferMax}
	retries := tcpip.TCPSynRetriesOption(synRetries)
	wait := tcpip.TCPTimeWaitTimeoutOption(timeWait)
	linger := tcpip.TCPLingerTimeoutOption(lingerMax)
	for _, option := range []tcpip.SettableTransportProtocolOption{
		&sack, &moderate, &congestion, &receive, &send, &retries, &wait, &linger,
	} {
		if err := s.stack.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return err
		}
	}
	return nil
}
