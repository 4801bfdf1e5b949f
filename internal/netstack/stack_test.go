package netstack_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"gondolin/internal/netstack"
	"gondolin/internal/netstack/netstacktest"
	"gondolin/internal/testenv"
)

type handler struct {
	admit func(netstack.Flow) error
	serve func(context.Context, netstack.Conn, netstack.Flow)
}

func (h handler) Admit(f netstack.Flow) error {
	if h.admit == nil {
		return nil
	}
	return h.admit(f)
}

func (h handler) Serve(ctx context.Context, c netstack.Conn, f netstack.Flow) { h.serve(ctx, c, f) }

// connect runs a stack with the handler and a guest on its cable until the
// test ends, and fails the test if goroutines outlive them.
func connect(t *testing.T, cfg netstack.Config) *netstacktest.Guest {
	t.Helper()
	testenv.CheckLeaks(t)
	s, err := netstack.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g, err := netstacktest.New()
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		if err := s.Run(ctx, near); err != nil {
			t.Errorf("stack: %v", err)
		}
	})
	group.Go(func() {
		if err := g.Run(ctx, far); err != nil {
			t.Logf("guest: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); group.Wait() })
	return g
}

func echo(_ context.Context, c netstack.Conn, _ netstack.Flow) {
	defer c.Close()
	if _, err := io.Copy(c, c); err == nil {
		_ = c.CloseWrite()
	}
}

func TestFlowKnowsItsName(t *testing.T) {
	flows := make(chan netstack.Flow, 1)
	g := connect(t, netstack.Config{Handler: handler{serve: func(ctx context.Context, c netstack.Conn, f netstack.Flow) {
		flows <- f
		echo(ctx, c, f)
	}}})
	conn, err := g.DialContext(t.Context(), "tcp", "Api.Example.COM:8443")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	f := <-flows
	if f.Name != "api.example.com" || f.Addr.Port() != 8443 || !netstack.Synthetic.Contains(f.Addr.Addr()) || f.Guest.Addr() != netstack.GuestAddr.Addr() {
		t.Errorf("flow = %+v", f)
	}
	raw, err := g.Dial(t.Context(), netip.MustParseAddrPort("169.254.169.254:80"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if f := <-flows; f.Name != "" || f.Addr != netip.MustParseAddrPort("169.254.169.254:80") {
		t.Errorf("flow = %+v", f)
	}
}

func TestBulkBothWays(t *testing.T) {
	g := connect(t, netstack.Config{Handler: handler{serve: echo}})
	conn, err := g.DialContext(t.Context(), "tcp", "bulk.test:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	data := make([]byte, 8<<20)
	for i := range data {
		data[i] = byte(i * 7 >> 3)
	}
	var group sync.WaitGroup
	group.Go(func() {
		if _, err := conn.Write(data); err != nil {
			t.Errorf("write: %v", err)
		}
		if hc, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = hc.CloseWrite()
		}
	})
	got, err := io.ReadAll(conn)
	group.Wait()
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d of %d bytes: %v", len(got), len(data), err)
	}
}

func TestRefusedBeforeHandshake(t *testing.T) {
	g := connect(t, netstack.Config{Handler: handler{
		admit: func(netstack.Flow) error { return errors.New("no") },
		serve: func(_ context.Context, c netstack.Conn, _ netstack.Flow) { t.Error("served"); c.Close() },
	}})
	for _, addr := range []string{"1.2.3.4:25", "192.168.127.1:22"} {
		if _, err := g.Dial(t.Context(), netip.MustParseAddrPort(addr)); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestUDPIsUnreachable(t *testing.T) {
	g := connect(t, netstack.Config{Handler: handler{serve: echo}})
	conn, err := g.DialUDP(netip.MustParseAddrPort("8.8.8.8:443"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("quic?")); err != nil {
		t.Fatal(err)
	}
	// gonet does not wake a reader for an error, so ask again.
	for range 100 {
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err = conn.Read(make([]byte, 10))
		if err != nil && strings.Contains(err.Error(), "refused") {
			return
		}
	}
	t.Errorf("read: %v", err)
}

func TestDNSOverBoth(t *testing.T) {
	var mu sync.Mutex
	var seen []netstack.DNSQuery
	g := connect(t, netstack.Config{Handler: handler{serve: echo}, OnDNS: func(q netstack.DNSQuery) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, q)
	}})
	query := packQuery(t, "WwW.ExAmple.com.", dnsmessage.TypeA)
	udp, err := g.DialUDP(netstack.DNS)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcp, err := g.Dial(t.Context(), netstack.DNS)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	if _, err := udp.Write(query); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, err := udp.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	overUDP := bytes.Clone(buf[:n])
	for range 2 { // the connection stays
		if _, err := tcp.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(tcp, buf[:2]); err != nil {
			t.Fatal(err)
		}
		msg := buf[:binary.BigEndian.Uint16(buf)]
		if _, err := io.ReadFull(tcp, msg); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(msg, overUDP) {
			t.Errorf("over TCP %x, over UDP %x", msg, overUDP)
		}
	}
	if !bytes.Contains(overUDP, []byte("\x03WwW\x07ExAmple\x03com")) {
		t.Errorf("the case of the question changed: %q", overUDP)
	}
	addrs, err := g.Resolver().LookupHost(t.Context(), "localhost.")
	if err != nil || len(addrs) == 0 || addrs[0] != "127.0.0.1" {
		t.Logf("localhost: %v, %v (the resolver may know it itself)", addrs, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) < 3 || seen[0].Name != "www.example.com" || seen[0].Result != "NOERROR" || !netstack.Synthetic.Contains(seen[0].Addr) {
		t.Errorf("seen = %+v", seen)
	}
}

func TestCancelEndsOpenConnections(t *testing.T) {
	testenv.CheckLeaks(t)
	served := make(chan struct{})
	s, err := netstack.New(netstack.Config{Handler: handler{serve: func(_ context.Context, c netstack.Conn, _ netstack.Flow) {
		defer c.Close()
		close(served)
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("read something")
		}
	}}})
	if err != nil {
		t.Fatal(err)
	}
	g, err := netstacktest.New()
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { _ = g.Run(ctx, far) })
	go func() {
		_, _ = g.DialContext(ctx, "tcp", "x.test:80")
		<-served
		cancel()
	}()
	if err := s.Run(ctx, near); err != nil {
		t.Error(err)
	}
	group.Wait()
}

func TestOversizedFrameEndsTheLink(t *testing.T) {
	testenv.CheckLeaks(t)
	s, err := netstack.New(netstack.Config{Handler: handler{serve: echo}})
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	go func() { _, _ = far.Write([]byte{0xff, 0xff, 0xff, 0xff, 0}) }()
	if err := s.Run(t.Context(), near); err == nil || !strings.Contains(err.Error(), "cannot accept a frame of 4294967295 bytes") {
		t.Error(err)
	}
	far.Close()
}

func packQuery(t *testing.T, name string, typ dnsmessage.Type) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 0x1234, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: typ, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
