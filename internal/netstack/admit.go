package netstack

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"gondolin/internal/netstack/ethlink"
)

// EtherType values (IEEE 802) and IP protocol numbers (IANA).
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806

	protoICMP = 1
	protoTCP  = 6
	protoUDP  = 17
)

const (
	arpSize  = 28 // IPv4 over Ethernet, RFC 826
	ipv4Size = 20 // without options, RFC 791
)

var (
	guestMAC   = []byte(GuestMAC())
	gatewayMAC = []byte(GatewayMAC())
	broadcast  = []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

// admit reports whether a frame of the guest may reach the stack. The frame has
// at least an Ethernet header.
func admit(frame []byte) bool {
	dst, src := frame[0:6], frame[6:12]
	if !bytes.Equal(src, guestMAC) {
		return false
	}
	toGateway := bytes.Equal(dst, gatewayMAC)
	packet := frame[ethlink.HeaderSize:]
	switch binary.BigEndian.Uint16(frame[12:14]) {
	case etherARP:
		return (toGateway || bytes.Equal(dst, broadcast)) && admitARP(packet)
	case etherIPv4:
		return toGateway && admitIPv4(packet)
	default:
		return false
	}
}

// admitARP admits the guest's own request for the gateway, RFC 826. Replies
// are not needed: the guest's address is fixed.
func admitARP(p []byte) bool {
	if len(p) < arpSize {
		return false
	}
	const ethernetIPv4Request = "\x00\x01\x08\x00\x06\x04\x00\x01"
	return string(p[:8]) == ethernetIPv4Request &&
		bytes.Equal(p[8:14], guestMAC) &&
		netip.AddrFrom4([4]byte(p[14:18])) == GuestAddr.Addr() &&
		netip.AddrFrom4([4]byte(p[24:28])) == Gateway
}

func admitIPv4(p []byte) bool {
	const versionAndLength = 0x45 // IPv4, five words: no options
	if len(p) < ipv4Size || p[0] != versionAndLength {
		return false
	}
	total := int(binary.BigEndian.Uint16(p[2:4]))
	if total < ipv4Size || total > len(p) {
		return false
	}
	const moreFragmentsOrOffset = 0x3fff
	if binary.BigEndian.Uint16(p[6:8])&moreFragmentsOrOffset != 0 {
		return false
	}
	src, dst := netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
	if src != GuestAddr.Addr() || dst == src || dst.IsMulticast() || dst.IsUnspecified() || dst.IsLoopback() || p[16] == 255 {
		return false
	}
	switch p[9] {
	case protoTCP, protoUDP:
		return true
	case protoICMP:
		const echoRequest = 8 // RFC 792; errors would have a say in the state of connections
		return dst == Gateway && total > ipv4Size && p[ipv4Size] == echoRequest
	default:
		return false
	}
}
