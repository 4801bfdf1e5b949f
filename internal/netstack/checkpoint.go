package netstack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// A guest that was copied remembers the addresses it was told and the connections it
// had. The addresses have to stay; of the connections the stack of the copy knows
// nothing, and the guest has to learn that, also where it only waits for data.

// List returns the names in the order of their addresses, for NamesOf.
func (n *Names) List() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]string, len(n.byName))
	for i := range list {
		list[i] = n.byAddr[syntheticAddr(i)]
	}
	return list
}

// NamesOf returns names that have the addresses they had when they were listed.
func NamesOf(list []string) (*Names, error) {
	n := new(Names)
	for i, name := range list {
		addr, err := n.address(name)
		if err != nil {
			return nil, err
		}
		if addr != syntheticAddr(i) {
			return nil, fmt.Errorf("cannot use the names of a guest: %q is there twice", name)
		}
	}
	return n, nil
}

// Flows returns the guest's TCP connections, at most maxFlows; none while Run does not run.
func (s *Stack) Flows() []Flow {
	s.mu.Lock()
	running := s.serve != nil
	s.mu.Unlock()
	if !running {
		return nil
	}
	var list []Flow
	for _, e := range s.stack.RegisteredEndpoints() {
		ep, ok := e.(*tcp.Endpoint)
		if !ok {
			continue
		}
		info, ok := ep.Info().(*stack.TransportEndpointInfo)
		if !ok || info.ID.RemotePort == 0 || len(list) >= maxFlows {
			continue
		}
		list = append(list, Flow{
			Addr:  netip.AddrPortFrom(netip.AddrFrom4(info.ID.LocalAddress.As4()), info.ID.LocalPort),
			Guest: netip.AddrPortFrom(netip.AddrFrom4(info.ID.RemoteAddress.As4()), info.ID.RemotePort),
		})
	}
	return list
}

// probeTimes are when the guest is asked about its lost connections: its card may
// not take frames at once.
var probeTimes = []time.Duration{0, 500 * time.Millisecond, 2 * time.Second}

// endLost has the guest reset the connections that are no more: an ACK that fits no
// connection is answered with an ACK (RFC 9293, 3.10.7.4), and that one with RST, as
// it belongs to a connection this stack does not know.
func (s *Stack) endLost(ctx context.Context, lost []Flow) error {
	if len(lost) == 0 {
		return nil
	}
	began := time.Now()
	for _, at := range probeTimes {
		timer := time.NewTimer(at - time.Since(began))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		for _, flow := range lost {
			// Two numbers half the space apart: the window covers one of them at most.
			for _, seq := range []uint32{0, 1 << 31} {
				if err := s.probe(flow, seq); err != nil {
					s.logger.Debug("cannot end a connection the guest had", "address", flow.Addr, "error", err)
				}
			}
		}
	}
	return nil
}

func (s *Stack) probe(flow Flow, seq uint32) error {
	if !flow.Addr.Addr().Is4() || !flow.Guest.Addr().Is4() {
		return errors.New("it is not IPv4")
	}
	const size = header.IPv4MinimumSize + header.TCPMinimumSize
	from, to := tcpip.AddrFrom4(flow.Addr.Addr().As4()), tcpip.AddrFrom4(flow.Guest.Addr().As4())
	packet := make([]byte, size)
	ip := header.IPv4(packet)
	ip.Encode(&header.IPv4Fields{
		TotalLength: size, TTL: 64, Protocol: uint8(header.TCPProtocolNumber), SrcAddr: from, DstAddr: to,
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	segment := header.TCP(packet[header.IPv4MinimumSize:])
	segment.Encode(&header.TCPFields{
		SrcPort: flow.Addr.Port(), DstPort: flow.Guest.Port(), SeqNum: seq,
		DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagAck,
	})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, from, to, header.TCPMinimumSize)
	segment.SetChecksum(^checksum.Checksum(segment, sum))
	terr := s.stack.WritePacketToRemote(nic, tcpip.LinkAddress(GuestMAC()), header.IPv4ProtocolNumber, buffer.MakeWithData(packet))
	if terr != nil {
		return errors.New(terr.String())
	}
	return nil
}
