package egress

import (
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"gondolin/policy"
)

// TestPlaceholdersPerRequestAreBounded: each occurrence may grow to 16 KiB.
func TestPlaceholdersPerRequestAreBounded(t *testing.T) {
	w := newWorld(t, tokenNetwork(), hello)
	placeholder := w.gateway.Env()["TOKEN"]
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(placeholder, maxPlaceholders+1)))
	for sent, want := range map[string]int{
		strings.Repeat(placeholder, maxPlaceholders):   200,
		strings.Repeat(placeholder, maxPlaceholders+1): 431,
		basic: 431,
	} {
		resp, body := w.do("GET", "https://api.test/", func(r *http.Request) { r.Header.Set("X-Key", sent) })
		if resp.StatusCode != want {
			t.Errorf("%d placeholder bytes: %d %q", len(sent), resp.StatusCode, body)
		}
	}
}

// TestTrailersOfEncodedBodies: that a body cannot be searched is no reason to
// let its trailers through.
func TestTrailersOfEncodedBodies(t *testing.T) {
	w := newWorld(t, tokenNetwork(), func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Trailer", "X-Tail")
		rw.Header().Set("Content-Encoding", "gzip")
		body := gzip.NewWriter(rw)
		_, _ = io.WriteString(body, "hello")
		_ = body.Close()
		rw.Header().Set("X-Tail", r.Header.Get("X-Key"))
	})
	placeholder := w.gateway.Env()["TOKEN"]
	resp, _ := w.do("GET", "https://api.test/", func(r *http.Request) { r.Header.Set("X-Key", placeholder) })
	if got := resp.Trailer.Get("X-Tail"); got != placeholder {
		t.Errorf("trailer %q", got)
	}
}

// TestErrorsDoNotQuoteSecrets: an error may quote what the server sent.
func TestErrorsDoNotQuoteSecrets(t *testing.T) {
	const value = `pa"ss\word-pa"ss\word`
	network := tokenNetwork()
	network.Secrets = map[string]policy.Secret{"TOKEN": {Hosts: []string{"api.test"}, Value: value}}
	encoded := base64.StdEncoding.EncodeToString([]byte("u:" + value))
	w := newWorld(t, network, func(rw http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Errorf("hijack: %v", err)
			return
		}
		_, _ = io.WriteString(conn, r.Header.Get("X-Key")+"\r\n\r\n")
		_ = conn.Close()
	})
	placeholder := w.gateway.Env()["TOKEN"]
	for _, sent := range []string{placeholder, "Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+placeholder))} {
		resp, body := w.do("GET", "https://api.test/", func(r *http.Request) { r.Header.Set("X-Key", sent) })
		if resp.StatusCode != 502 || strings.Contains(body, `pa\"ss`) || strings.Contains(body, `pa"ss`) || strings.Contains(body, encoded) {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
	}
}

// TestUpstreamConnectionsAreBounded: dials outlive the requests they are for,
// so they have a bound of their own, and every end of one gives its place back.
func TestUpstreamConnectionsAreBounded(t *testing.T) {
	fail := errors.New("unreachable")
	g, err := New(Config{
		Policy: policy.Network{Allow: []policy.Rule{{Host: "8.0.0.1"}}},
		Dialer: func(context.Context, string, netip.AddrPort) (net.Conn, error) {
			if fail != nil {
				return nil, fail
			}
			near, far := net.Pipe()
			_ = far.Close()
			return near, nil
		},
		HostAddrs: func() ([]netip.Addr, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	u := newUpstream(ctx, g)
	defer u.close()
	dial := func() (net.Conn, error) { return u.dial(t.Context(), "tcp", "8.0.0.1:443") }
	for range maxUpstream + 1 {
		if _, err := dial(); !errors.Is(err, fail) {
			t.Fatalf("a failed dial keeps its place: %v", err)
		}
	}
	fail = nil
	var last net.Conn
	for range maxUpstream {
		if last, err = dial(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := dial(); err == nil {
		t.Fatal("one connection too many")
	}
	_, _ = last.Close(), last.Close() // twice, as net/http may
	if _, err := dial(); err != nil {
		t.Error(err)
	}
	if _, err := dial(); err == nil {
		t.Error("closing twice gave two places back")
	}
}
