package netstack_test

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"gondolin/internal/netstack"
	"gondolin/internal/netstack/pcapng"
)

// recording is a buffer that can be read while it is written.
type recording struct {
	mu sync.Mutex // guards b
	b  []byte
}

func (r *recording) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.b = append(r.b, p...)
	return len(p), nil
}

func (r *recording) count(s string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Count(r.b, []byte(s))
}

func TestCaptureHasBothDirections(t *testing.T) {
	var out recording
	g := connect(t, netstack.Config{
		Handler: handler{serve: echo}, Capture: pcapng.NewWriter(&out, slog.New(slog.DiscardHandler)),
	})
	conn, err := g.DialUDP(netstack.DNS)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(packQuery(t, "captured.test.", dnsmessage.TypeA)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1500)); err != nil {
		t.Fatal(err)
	}
	if n := out.count("\x08captured\x04test"); n != 2 {
		t.Errorf("the name is in %d frames, want the query and the reply", n)
	}
}
