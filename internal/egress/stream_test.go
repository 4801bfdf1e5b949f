package egress

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gondolin/internal/audit"
	"gondolin/internal/netstack"
	"gondolin/policy"
)

// zeros is an endless, cheap body.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestLargeBodiesStream moves far more than the memory allowed for it, with a
// reader that stops half way: what is in flight then is all there is.
func TestLargeBodiesStream(t *testing.T) {
	const size = 32 << 20
	release := make(chan struct{})
	w := newWorld(t, tokenNetwork(), func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
			<-release
			n, err := io.Copy(io.Discard, r.Body)
			_, _ = fmt.Fprintf(rw, "%d %v", n+1<<20, err)
			return
		}
		rw.Header().Set("Content-Length", fmt.Sprint(size))
		_, _ = io.CopyN(rw, zeros{}, size)
	})
	w.client.Timeout = 0
	before := heap()
	bounded := func(what string) {
		t.Helper()
		time.Sleep(200 * time.Millisecond) // let everything fill that will
		if now := heap(); now > before+16<<20 {
			t.Errorf("%s: the heap grew by %d MiB", what, (now-before)>>20)
		}
	}
	r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://api.test/down", nil)
	resp, err := w.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, 1<<20); err != nil {
		t.Fatal(err)
	}
	bounded("download")
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size-1<<20 || resp.ContentLength != size {
		t.Errorf("%d bytes, length %d, %v", n, resp.ContentLength, err)
	}
	resp.Body.Close()

	r, _ = http.NewRequestWithContext(t.Context(), "PUT", "https://api.test/up", io.LimitReader(zeros{}, size)) // chunked
	answered := make(chan string, 1)
	go func() {
		resp, err := w.client.Do(r)
		if err != nil {
			answered <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answered <- string(body)
	}()
	bounded("upload")
	close(release)
	if got, want := <-answered, fmt.Sprintf("%d <nil>", size); got != want {
		t.Errorf("upload: %q, want %q", got, want)
	}
	e := w.waitEvent(func(e audit.Event) bool { return e.Kind == audit.Response && e.Path == "/up" })
	if e.Sent != size || e.Status != 200 {
		t.Errorf("event = %+v", e)
	}
}

func TestConnectionsAreReused(t *testing.T) {
	w := newWorld(t, tokenNetwork(), hello)
	for range 5 {
		w.do("GET", "https://api.test/", nil)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns != 1 || len(w.dials) != 1 || w.dials[0] != netip.MustParseAddrPort("8.0.0.1:443") {
		t.Errorf("%d connections, dialled %v", w.conns, w.dials)
	}
}

func TestServerSentEventsFlow(t *testing.T) {
	next := make(chan struct{})
	w := newWorld(t, tokenNetwork(), func(rw http.ResponseWriter, _ *http.Request) {
		for range 3 {
			_, _ = io.WriteString(rw, "data: x\n\n")
			_ = http.NewResponseController(rw).Flush()
			<-next
		}
	})
	r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://api.test/", nil)
	resp, err := w.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for range 3 {
		if _, err := io.ReadFull(resp.Body, make([]byte, len("data: x\n\n"))); err != nil {
			t.Fatal(err)
		}
		next <- struct{}{}
	}
}

func TestGuestDisconnectCancelsUpstream(t *testing.T) {
	arrived, cancelled := make(chan struct{}), make(chan struct{})
	w := newWorld(t, tokenNetwork(), func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(cancelled)
	})
	ctx, cancel := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, "GET", "https://api.test/gone", nil)
	go func() { <-arrived; cancel() }()
	if resp, err := w.client.Do(r); err == nil {
		resp.Body.Close()
		t.Error("there was an answer")
	}
	select {
	case <-cancelled:
	case <-time.After(5 * time.Second):
		t.Error("the upstream request goes on")
	}
	w.waitEvent(func(e audit.Event) bool { return e.Path == "/gone" && e.Reason != "" })
}

func TestCancelEndsRequests(t *testing.T) {
	arrived := make(chan struct{})
	w := newWorld(t, tokenNetwork(), func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	})
	go func() { <-arrived; w.cancel() }()
	r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://api.test/", nil)
	if resp, err := w.client.Do(r); err == nil {
		t.Log("the response was", resp.Status)
		resp.Body.Close()
	}
	select {
	case <-w.done:
	case <-time.After(5 * time.Second):
		t.Error("Run goes on")
	}
}

// TestTruncatedBodyIsNotComplete: a server that dies mid-body must not look
// like one that finished.
func TestTruncatedBodyIsNotComplete(t *testing.T) {
	w := newWorld(t, tokenNetwork(), func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "half")
		_ = http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	})
	r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://api.test/half", nil)
	resp, err := w.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("read %q without an error", body)
	}
	w.waitEvent(func(e audit.Event) bool { return e.Path == "/half" && e.Reason == "the connection was dropped" })
}

func TestBytesStayAsTheyAre(t *testing.T) {
	w := newWorld(t, tokenNetwork(), func(rw http.ResponseWriter, r *http.Request) {
		h := rw.Header()
		h["Date"], h["Content-Type"] = nil, nil
		h.Set("Content-Encoding", "zstd")
		h["Set-Cookie"] = []string{"a=1", "b=2"}
		var got bytes.Buffer
		_ = r.Header.Write(&got)
		_, _ = fmt.Fprintf(rw, "%s\n%s", r.RequestURI, got.String())
	})
	got := w.raw("api.test:80", "GET /a%2Fb;c?x=1;y&%zz HTTP/1.1\r\nHost: api.test\r\nX-Forwarded-For: 1.2.3.4\r\nConnection: close\r\n\r\n")
	head, body, _ := strings.Cut(got, "\r\n\r\n")
	for _, name := range []string{"Date:", "Content-Type:"} {
		if strings.Contains(head, name) {
			t.Errorf("%s was added: %q", name, head)
		}
	}
	if !strings.Contains(head, "Content-Encoding: zstd") || strings.Count(head, "Set-Cookie") != 2 {
		t.Errorf("head: %q", head)
	}
	if body != "/a%2Fb;c?x=1;y&%zz\nX-Forwarded-For: 1.2.3.4\r\n" {
		t.Errorf("the server got %q", body)
	}
}

func TestExpectContinueAndEarlyHints(t *testing.T) {
	w := newWorld(t, tokenNetwork(), func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Link", "<"+r.Header.Get("X-Key")+">")
		rw.WriteHeader(http.StatusEarlyHints)
		rw.Header().Del("Link")
		body, _ := io.ReadAll(r.Body)
		_, _ = rw.Write(body)
	})
	continued, hinted := false, ""
	trace := &httptrace.ClientTrace{
		Got100Continue: func() { continued = true },
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			if code == http.StatusEarlyHints {
				hinted = h.Get("Link")
			}
			return nil
		},
	}
	transport, _ := w.client.Transport.(*http.Transport)
	transport.ExpectContinueTimeout = 10 * time.Second
	r, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "POST", "https://api.test/", strings.NewReader("body"))
	r.Header.Set("Expect", "100-continue")
	r.Header.Set("X-Key", w.gateway.Env()["TOKEN"])
	resp, err := w.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if string(body) != "body" || !continued || hinted != "<"+w.gateway.Env()["TOKEN"]+">" {
		t.Errorf("%q, continued %v, hints %q", body, continued, hinted)
	}
	// Refused before any body is asked for.
	conn, err := w.guest.DialContext(t.Context(), "tcp", "evil.test:80")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "PUT / HTTP/1.1\r\nHost: evil.test\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "HTTP/1.1 403 Forbidden\r\n" {
		t.Errorf("%q, %v", line, err)
	}
}

func TestWebSocketUpgrade(t *testing.T) {
	w := newWorld(t, tokenNetwork(), func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+secretValue {
			http.Error(rw, "no", http.StatusUnauthorized)
			return
		}
		conn, buf, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst")
		_, _ = io.Copy(conn, buf)
	})
	r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://api.test/ws", nil)
	// Not the client: with a timeout it hides the stream's Write.
	r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Authorization": {"Bearer " + w.gateway.Env()["TOKEN"]}}
	resp, err := w.client.Transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	stream, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode != 101 || !ok {
		t.Fatalf("%d", resp.StatusCode)
	}
	if _, err := io.WriteString(stream, " and echo"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("first and echo"))
	if _, err := io.ReadFull(bufio.NewReader(stream), got); err != nil || string(got) != "first and echo" {
		t.Errorf("%q, %v", got, err)
	}
	stream.Close()
	e := w.waitEvent(func(e audit.Event) bool { return e.Kind == audit.Response && e.Path == "/ws" })
	if e.Status != 101 || e.Sent != 9 || e.Received != 14 {
		t.Errorf("event = %+v", e)
	}
}

// TestPanicIsDenied: a fault above the wire is a refusal, not a crash.
func TestPanicIsDenied(t *testing.T) {
	w := newWorld(t, tokenNetwork(), hello)
	s := newSession(t.Context(), w.gateway)
	s.proxy = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a fault") })
	conn := newGuestConn(nil, netstack.Flow{Name: "api.test", Addr: netip.MustParseAddrPort("198.18.0.1:80")})
	rec := &recorder{header: http.Header{}}
	r, _ := http.NewRequestWithContext(context.WithValue(t.Context(), connKey{}, conn), "GET", "http://api.test/panic", nil)
	s.serveRequest(rec, r)
	if rec.status != 500 {
		t.Errorf("status %d", rec.status)
	}
	w.waitEvent(func(e audit.Event) bool { return e.Path == "/panic" && e.Decision == audit.Deny })
}

type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(p []byte) (int, error) { return len(p), nil }
func (r *recorder) WriteHeader(status int)      { r.status = status }

// pipeConn is a netstack.Conn without a stack, for fake time.
type pipeConn struct {
	net.Conn
	reset chan struct{}
	once  sync.Once
}

func (c *pipeConn) CloseWrite() error { return nil }
func (c *pipeConn) Reset()            { c.once.Do(func() { close(c.reset) }) }

func TestSilentConnectionsAreReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g, err := New(Config{Policy: policy.Network{}, Audit: audit.New(&log)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := newSession(ctx, g)
		for _, first := range []string{"", "\x16\x03\x01"} {
			near, far := net.Pipe()
			conn := &pipeConn{Conn: near, reset: make(chan struct{})}
			start := time.Now()
			done := make(chan struct{})
			go func() {
				s.Serve(ctx, conn, netstack.Flow{Name: "db.test", Addr: netip.MustParseAddrPort("198.18.0.1:443")})
				close(done)
			}()
			_, _ = io.WriteString(far, first)
			<-done
			if waited := time.Since(start); waited > peekTimeout+handshakeTimeout || waited < peekTimeout {
				t.Errorf("%q: ended after %v", first, waited)
			}
			far.Close()
		}
		if !strings.Contains(log.String(), "server speaks first") || !strings.Contains(log.String(), "TLS handshake failed") {
			t.Errorf("log: %s", log.String())
		}
	})
}

// TestRunAgain: a guest that was plugged out and in still knows its addresses,
// without asking again.
func TestRunAgain(t *testing.T) {
	w := newWorld(t, tokenNetwork(), hello)
	w.do("GET", "http://api.test/before", nil)
	told := w.waitEvent(func(e audit.Event) bool { return e.Kind == audit.DNS && e.Name == "api.test" && e.Address != "" })
	w.cancel()
	<-w.done
	w.plugIn(func() {})
	if resp, body := w.do("GET", "http://"+told.Address+"/after", func(r *http.Request) { r.Host = "api.test" }); resp.StatusCode != 200 {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}
