package egress

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gondolin/internal/audit"
	"gondolin/internal/netstack"
)

// http2Client is a guest's client that speaks HTTP/2 alone: over TLS by ALPN,
// without it by prior knowledge.
func (w *world) http2Client() *http.Transport {
	transport, _ := w.client.Transport.(*http.Transport)
	transport = transport.Clone()
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP2(true)
	transport.Protocols.SetUnencryptedHTTP2(true)
	w.t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// echo answers each byte at once, as a gRPC stream does, and ends with a trailer
// that says what the request's was.
func echo(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 is so anyway
	w.Header().Set("Trailer", "Grpc-Status")
	w.Header().Set("X-Proto", r.Proto)
	w.Header().Set("X-Te", r.Header.Get("Te"))
	_ = http.NewResponseController(w).Flush()
	buf := make([]byte, 1)
	for {
		if _, err := io.ReadFull(r.Body, buf); err != nil {
			break
		}
		_, _ = w.Write(buf)
		_ = http.NewResponseController(w).Flush()
	}
	w.Header().Set("Grpc-Status", "0 after "+r.Trailer.Get("X-Tail"))
	w.Header().Set(http.TrailerPrefix+"Grpc-Message", "unannounced")
}

// TestHTTP2Streams: both directions flow at once, with trailers, over HTTP/2 from
// the guest to the server, with and without TLS.
func TestHTTP2Streams(t *testing.T) {
	w := newWorldServing(t, tokenNetwork(), echo, true)
	client := w.http2Client()
	for _, url := range []string{"https://api.test/echo", "http://api.test/echo"} {
		body, feed := io.Pipe()
		r, _ := http.NewRequestWithContext(t.Context(), "POST", url, body)
		r.Trailer = http.Header{"X-Tail": nil}
		r.Header.Set("Te", "trailers")
		resp, err := client.RoundTrip(r)
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		if resp.ProtoMajor != 2 || resp.Header.Get("X-Proto") != "HTTP/2.0" || resp.Header.Get("X-Te") != "trailers" {
			t.Errorf("%s: %s to the guest, %v", url, resp.Proto, resp.Header)
		}
		got := make([]byte, 1)
		for _, c := range "abc" {
			_, _ = io.WriteString(feed, string(c))
			if _, err := io.ReadFull(resp.Body, got); err != nil || rune(got[0]) != c {
				t.Fatalf("%s: %q, %v", url, got, err)
			}
		}
		r.Trailer.Set("X-Tail", "tail")
		_ = feed.Close()
		if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
			t.Errorf("%s: %q, %v", url, rest, err)
		}
		_ = resp.Body.Close()
		if resp.Trailer.Get("Grpc-Status") != "0 after tail" || resp.Trailer.Get("Grpc-Message") != "unannounced" {
			t.Errorf("%s: trailer %v", url, resp.Trailer)
		}
		scheme, _, _ := strings.Cut(url, ":")
		w.waitEvent(func(e audit.Event) bool {
			return e.Kind == audit.Response && e.Scheme == scheme && e.Sent == 3 && e.Received == 3
		})
	}
}

// TestHTTP2ToOlderServers: what the guest speaks over TLS does not bind the server.
func TestHTTP2ToOlderServers(t *testing.T) {
	w := newWorld(t, tokenNetwork(), echo)
	r, _ := http.NewRequestWithContext(t.Context(), "POST", "https://api.test/", strings.NewReader("x"))
	resp, err := w.http2Client().RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); resp.ProtoMajor != 2 || string(body) != "x" || err != nil || resp.Header.Get("X-Proto") != "HTTP/1.1" {
		t.Errorf("%s %q %v %v", resp.Proto, body, err, resp.Header)
	}
}

// TestHTTP2SecretsGoIn: the same injection and scrubbing as over HTTP/1.1.
func TestHTTP2SecretsGoIn(t *testing.T) {
	w := newWorldServing(t, tokenNetwork(), func(rw http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(rw, r.Header.Get("Authorization") == "Bearer "+secretValue, r.Header.Get("Authorization"))
	}, true)
	client := w.http2Client()
	placeholder := w.gateway.Env()["TOKEN"]
	for host, want := range map[string]string{"api.test": "true" + "Bearer " + strings.Repeat("*", len(secretValue)), "other.test": ""} {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://"+host+"/", nil)
		r.Header.Set("Authorization", "Bearer "+placeholder)
		resp, err := client.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if want == "" && resp.StatusCode != 403 || want != "" && string(body) != want {
			t.Errorf("%s: %d %q", host, resp.StatusCode, body)
		}
	}
}

// TestHTTP2NamesMustAgree: each request on a connection is held against it.
func TestHTTP2NamesMustAgree(t *testing.T) {
	w := newWorldServing(t, tokenNetwork(), hello, true)
	client := w.http2Client()
	for host, want := range map[string]int{"api.test": 200, "other.test": 421, "api.test:8443": 421} {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://api.test/", nil)
		r.Host = host
		resp, err := client.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d", host, resp.StatusCode)
		}
	}
	if got := w.http2Status(":authority", "api.test", "host", "other.test"); got != "400" {
		t.Errorf("two hosts: %s", got)
	}
	if got := w.http2Status(":authority", "api.test", "host", "api.test"); got != "200" {
		t.Errorf("the same host twice: %s", got)
	}
	if got := w.http2Status(":authority", "api.test", "transfer-encoding", "chunked"); got != "400" {
		t.Errorf("Transfer-Encoding: %s", got)
	}
	for _, hit := range w.seen() {
		if hit != "GET api.test /" {
			t.Errorf("a server saw %q", hit)
		}
	}
}

// http2Status sends one request of raw fields, which client libraries would not
// send, and returns its status, or "reset".
func (w *world) http2Status(fields ...string) string {
	w.t.Helper()
	conn, err := w.guest.DialContext(w.t.Context(), "tcp", "api.test:80")
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	var head strings.Builder
	encoder := hpack.NewEncoder(&head)
	fields = append([]string{":method", "GET", ":scheme", "http", ":path", "/"}, fields...)
	for i := 0; i < len(fields); i += 2 {
		_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_, _ = io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_ = framer.WriteSettings()
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(head.String()), EndStream: true, EndHeaders: true})
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			w.t.Fatal(err)
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "reset"
		}
	}
}

// TestRequestsAreBounded: streams are cheap for the guest, so all requests
// together have a bound.
func TestRequestsAreBounded(t *testing.T) {
	w := newWorld(t, tokenNetwork(), hello)
	s := newSession(t.Context(), w.gateway)
	s.running.Store(maxRequests)
	conn := newGuestConn(nil, netstack.Flow{Name: "api.test", Addr: netip.MustParseAddrPort("198.18.0.1:80")})
	rec := &recorder{header: http.Header{}}
	r, _ := http.NewRequestWithContext(context.WithValue(t.Context(), connKey{}, conn), "GET", "http://api.test/busy", nil)
	s.serveRequest(rec, r)
	if rec.status != http.StatusServiceUnavailable || s.running.Load() != maxRequests {
		t.Errorf("status %d, %d running", rec.status, s.running.Load())
	}
	w.waitEvent(func(e audit.Event) bool { return e.Path == "/busy" && e.Decision == audit.Deny && e.Code == "busy" })
}
