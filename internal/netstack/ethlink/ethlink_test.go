package ethlink_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"gondolin/internal/netstack/ethlink"
	"gondolin/internal/testenv"
)

func framed(payloads ...[]byte) []byte {
	var b []byte
	for _, p := range payloads {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(p))), p...)
	}
	return b
}

func TestReadFrame(t *testing.T) {
	buf := make([]byte, ethlink.MaxFrame)
	in := framed([]byte("one"), nil, make([]byte, ethlink.MaxFrame))
	r := iotest.OneByteReader(bytes.NewReader(in[:16]))
	for _, want := range []int{3, 0} {
		if n, err := ethlink.ReadFrame(r, buf); n != want || err != nil {
			t.Errorf("%d, %v, want %d", n, err, want)
		}
	}
	if n, err := ethlink.ReadFrame(bytes.NewReader(in[11:]), buf); n != ethlink.MaxFrame || err != nil {
		t.Errorf("largest: %d, %v", n, err)
	}
	if _, err := ethlink.ReadFrame(strings.NewReader(""), buf); !errors.Is(err, io.EOF) {
		t.Errorf("empty: %v", err)
	}
	for _, bad := range []string{"\x00", "\x00\x00\x00", "\x00\x00\x00\x02a", "\x00\x00\x00\x02", "\x00\x01\x10\x01", "\xff\xff\xff\xff"} {
		if _, err := ethlink.ReadFrame(strings.NewReader(bad), buf); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// sink is a dispatcher that notes frames and panics on those that say so.
type sink struct{ got []string }

func (s *sink) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	text := string(pkt.Data().AsRange().ToSlice())
	if strings.Contains(text, "panic") {
		panic("a fault")
	}
	s.got = append(s.got, text)
}

func (*sink) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

type stream struct{ io.Reader }

func (stream) Write(p []byte) (int, error) { return len(p), nil }
func (stream) Close() error                { return nil }

func TestRunDropsAndSurvives(t *testing.T) {
	testenv.CheckLeaks(t)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	frame := func(payload string) []byte { return append(make([]byte, ethlink.HeaderSize), payload...) }
	run := func(s *sink, in []byte) error {
		l := ethlink.New(ethlink.Config{MAC: mac, MTU: 100, Admit: func(f []byte) bool { return !bytes.Contains(f, []byte("refused")) }})
		l.Endpoint().Attach(s)
		return l.Run(t.Context(), stream{bytes.NewReader(in)})
	}
	var s sink
	in := framed(frame("first"), []byte("short"), frame(strings.Repeat("x", 101)), make([]byte, 9014), frame("refused"), frame(strings.Repeat("y", 100)), frame("last"))
	if err := run(&s, in); err != nil {
		t.Error(err)
	}
	if got := strings.Join(s.got, ","); got != "first,"+strings.Repeat("y", 100)+",last" {
		t.Errorf("delivered %q", got)
	}
	if err := run(&sink{}, framed(frame("panic"))); err == nil || !strings.Contains(err.Error(), "cannot process a frame") {
		t.Errorf("after a panic: %v", err)
	}
}
