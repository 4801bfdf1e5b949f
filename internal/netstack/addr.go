package netstack

import (
	"net"
	"net/netip"
)

// The address plan: every sandbox has the same one, on a cable of its own.
var (
	// GuestAddr is the guest's address and subnet.
	GuestAddr = netip.MustParsePrefix("192.168.127.3/24")
	// Gateway is the host's end: default route and answer to ping.
	Gateway = netip.MustParseAddr("192.168.127.1")
	// DNS is where the guest sends name queries, over UDP or TCP.
	DNS = netip.AddrPortFrom(Gateway, 53)
	// Synthetic is the block from which every name the guest asks for gets an
	// address of its own (RFC 2544: never on the public internet).
	Synthetic = netip.MustParsePrefix("198.18.0.0/15")
)

// GatewayMAC is the host's Ethernet address.
func GatewayMAC() net.HardwareAddr {
	return net.HardwareAddr{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd}
}

// GuestMAC is the guest's Ethernet address, the "mac" of its network card.
func GuestMAC() net.HardwareAddr {
	return net.HardwareAddr{0x02, 0x00, 0x00, 0x00, 0x00, 0x01}
}

// MTU is the largest IP packet in bytes, both ways.
const MTU = 1500
