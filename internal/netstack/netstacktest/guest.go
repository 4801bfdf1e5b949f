// Package netstacktest plays the guest: a second network stack on the other end
// of the cable, configured as the real guest is.
package netstacktest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"gondolin/internal/netstack"
	"gondolin/internal/netstack/ethlink"
)

const nic = tcpip.NICID(1)

// Guest is a guest's network. Run it once; dial while it runs.
type Guest struct {
	link  *ethlink.Link
	stack *stack.Stack
}

// New returns a guest whose cable is not plugged in.
func New() (*Guest, error) {
	g := &Guest{
		link: ethlink.New(ethlink.Config{MAC: netstack.GuestMAC(), MTU: netstack.MTU}),
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
		}),
	}
	if terr := g.configure(); terr != nil {
		g.stack.Destroy()
		return nil, fmt.Errorf("cannot set up the guest's stack: %s", terr)
	}
	return g, nil
}

func (g *Guest) configure() tcpip.Error {
	sack := tcpip.TCPSACKEnabled(true)
	if terr := g.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack); terr != nil {
		return terr
	}
	if terr := g.stack.CreateNIC(nic, g.link.Endpoint()); terr != nil {
		return terr
	}
	terr := g.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{
		Protocol: ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{
			Address: tcpip.AddrFrom4(netstack.GuestAddr.Addr().As4()), PrefixLen: netstack.GuestAddr.Bits(),
		},
	}, stack.AddressProperties{})
	g.stack.SetRouteTable([]tcpip.Route{{
		Destination: header.IPv4EmptySubnet, Gateway: tcpip.AddrFrom4(netstack.Gateway.As4()), NIC: nic,
	}})
	return terr
}

// Run plugs the cable in until ctx is done or the other end closes. It owns and
// closes conn, and destroys the stack.
func (g *Guest) Run(ctx context.Context, conn io.ReadWriteCloser) error {
	defer g.stack.Destroy()
	return g.link.Run(ctx, conn)
}

// Dial connects to an address over TCP.
func (g *Guest) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	conn, err := gonet.DialContextTCP(ctx, g.stack, full(addr), ipv4.ProtocolNumber)
	if err != nil {
		return nil, err // not a nil *TCPConn in a net.Conn
	}
	return conn, nil
}

// DialUDP returns a connected UDP socket.
func (g *Guest) DialUDP(addr netip.AddrPort) (net.Conn, error) {
	remote := full(addr)
	conn, err := gonet.DialUDP(g.stack, nil, &remote, ipv4.ProtocolNumber)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// Resolver asks the sandbox's name server, as the guest's libc would.
func (g *Guest) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		if network == "tcp" {
			return g.Dial(ctx, netstack.DNS)
		}
		return g.DialUDP(netstack.DNS)
	}}
}

// DialContext is for http.Transport: it resolves names through the sandbox.
func (g *Guest) DialContext(ctx context.Context, _, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		addrs, err := g.Resolver().LookupNetIP(ctx, "ip4", strings.TrimSuffix(host, ".")+".")
		if err != nil {
			return nil, err
		}
		addr = addrs[0].Unmap()
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return nil, err
	}
	return g.Dial(ctx, netip.AddrPortFrom(addr, uint16(number))) //nolint:gosec // G115: LookupPort returns a port
}

func full(addr netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(addr.Addr().As4()), Port: addr.Port()}
}
