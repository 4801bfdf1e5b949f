package netstack

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"testing"
	"time"

	"gondolin/internal/netstack/ethlink"
)

// goodFrames are frames a Linux guest sends: ARP for the gateway, a SYN, a
// datagram, a ping.
func goodFrames() map[string][]byte {
	eth := func(dst []byte, typ uint16, payload ...byte) []byte {
		b := append(bytes.Clone(dst), guestMAC...)
		return append(binary.BigEndian.AppendUint16(b, typ), payload...)
	}
	ip := func(proto byte, dst [4]byte, payload ...byte) []byte {
		h := []byte{0x45, 0, 0, byte(20 + len(payload)), 0, 1, 0x40, 0, 64, proto, 0, 0, 192, 168, 127, 3, dst[0], dst[1], dst[2], dst[3]}
		return append(h, payload...)
	}
	arp := append([]byte("\x00\x01\x08\x00\x06\x04\x00\x01"), guestMAC...)
	arp = append(arp, 192, 168, 127, 3, 0, 0, 0, 0, 0, 0, 192, 168, 127, 1)
	syn := []byte{0x80, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0}
	return map[string][]byte{
		"arp":  eth(broadcast, etherARP, arp...),
		"tcp":  eth(gatewayMAC, etherIPv4, ip(protoTCP, [4]byte{1, 2, 3, 4}, syn...)...),
		"udp":  eth(gatewayMAC, etherIPv4, ip(protoUDP, [4]byte{192, 168, 127, 1}, 0, 99, 0, 53, 0, 8, 0, 0)...),
		"ping": eth(gatewayMAC, etherIPv4, ip(protoICMP, [4]byte{192, 168, 127, 1}, 8, 0, 0xf7, 0xff, 0, 0, 0, 0)...),
	}
}

func TestAdmit(t *testing.T) {
	good := goodFrames()
	for name, f := range good {
		if !admit(f) {
			t.Errorf("%s is not admitted", name)
		}
	}
	bad := []struct {
		what, frame string
		at          int
		to          string
	}{
		{"source MAC", "tcp", 6, "\x02\x00\x00\x00\x00\x02"},
		{"destination MAC", "tcp", 0, "\x02\x00\x00\x00\x00\x09"},
		{"broadcast IPv4", "tcp", 0, "\xff\xff\xff\xff\xff\xff"},
		{"IPv6", "tcp", 12, "\x86\xdd"},
		{"VLAN", "tcp", 12, "\x81\x00"},
		{"options", "tcp", 14, "\x46"},
		{"total length", "tcp", 16, "\xff\xff"},
		{"short length", "tcp", 16, "\x00\x13"},
		{"more fragments", "tcp", 20, "\x20\x00"},
		{"fragment offset", "tcp", 20, "\x00\x01"},
		{"source IP", "tcp", 26, "\x0a\x00\x00\x01"},
		{"to itself", "tcp", 30, "\xc0\xa8\x7f\x03"},
		{"multicast", "udp", 30, "\xe0\x00\x00\xfb"},
		{"broadcast", "udp", 30, "\xff\xff\xff\xff"},
		{"loopback", "tcp", 30, "\x7f\x00\x00\x01"},
		{"protocol", "tcp", 23, "\x2f"},
		{"ICMP error", "ping", 34, "\x03"},
		{"ping elsewhere", "ping", 30, "\x08\x08\x08\x08"},
		{"ARP for another", "arp", 38, "\xc0\xa8\x7f\x09"},
		{"ARP from another", "arp", 28, "\xc0\xa8\x7f\x09"},
		{"ARP other MAC", "arp", 22, "\x02\x00\x00\x00\x00\x02"},
		{"ARP reply", "arp", 20, "\x00\x02"},
	}
	for _, tt := range bad {
		f := bytes.Clone(good[tt.frame])
		copy(f[tt.at:], tt.to)
		if admit(f) {
			t.Errorf("%s: admitted", tt.what)
		}
	}
	for name, f := range good {
		for n := ethlink.HeaderSize; n < len(f); n++ {
			if name != "arp" && n >= ethlink.HeaderSize && admit(f[:n]) || name == "arp" && admit(f[:n]) {
				t.Errorf("%s cut to %d bytes is admitted", name, n)
			}
		}
	}
}

type refuse struct{}

func (refuse) Admit(Flow) error                           { return errGatewayPort }
func (refuse) Serve(_ context.Context, conn Conn, _ Flow) { conn.Close() }

// stream feeds input to the link and swallows what it writes.
type stream struct{ io.Reader }

func (stream) Write(p []byte) (int, error) { return len(p), nil }
func (stream) Close() error                { return nil }

// FuzzFrames runs arbitrary bytes, and arbitrary payloads in good frames,
// through a whole stack.
func FuzzFrames(f *testing.F) {
	for _, frame := range goodFrames() {
		f.Add(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...), frame[ethlink.HeaderSize+ipv4Size:])
	}
	f.Add([]byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, []byte{})
	f.Fuzz(func(t *testing.T, raw, payload []byte) {
		payload = payload[:min(len(payload), MTU-ipv4Size)]
		var in []byte
		for _, name := range []string{"tcp", "udp", "ping"} {
			frame := append(bytes.Clone(goodFrames()[name][:ethlink.HeaderSize+ipv4Size]), payload...)
			packet := frame[ethlink.HeaderSize:]
			binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
			binary.BigEndian.PutUint16(packet[10:], 0)
			binary.BigEndian.PutUint16(packet[10:], headerChecksum(packet[:ipv4Size]))
			in = append(binary.BigEndian.AppendUint32(in, uint32(len(frame))), frame...)
		}
		s, err := New(Config{Handler: refuse{}})
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Run(t.Context(), stream{bytes.NewReader(append(in, raw...))}) // any error is fine, a panic is not
	})
}

// headerChecksum is RFC 1071 over an IPv4 header.
func headerChecksum(h []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(h); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(h[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// TestHalfOpenConnectionDoesNotDelayTheEnd: a SYN whose handshake begins while
// the link is ending must not be waited for.
func TestHalfOpenConnectionDoesNotDelayTheEnd(t *testing.T) {
	frame := bytes.Clone(goodFrames()["tcp"])
	packet := frame[ethlink.HeaderSize:]
	copy(packet[16:], []byte{192, 168, 127, 1})
	binary.BigEndian.PutUint16(packet[ipv4Size+2:], 53)
	binary.BigEndian.PutUint16(packet[10:], headerChecksum(packet[:ipv4Size]))
	segment := packet[ipv4Size:]
	pseudo := append(bytes.Clone(packet[12:20]), 0, protoTCP, 0, byte(len(segment)))
	binary.BigEndian.PutUint16(segment[16:], headerChecksum(append(pseudo, segment...)))
	in := append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
	for range 200 {
		s, err := New(Config{Handler: refuse{}})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := s.Run(t.Context(), stream{bytes.NewReader(in)}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 900*time.Millisecond {
			t.Fatalf("the end took %v", took)
		}
	}
}
