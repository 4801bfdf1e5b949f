package egress

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"gondolin/internal/audit"
	"gondolin/internal/netstack/netstacktest"
	"gondolin/internal/testenv"
	"gondolin/policy"
)

const secretValue = "hunter2-hunter2-hunter2"

// world is a gateway between a guest and an internet made of loopback servers.
type world struct {
	t       *testing.T
	gateway *Gateway
	guest   *netstacktest.Guest
	client  *http.Client
	cancel  context.CancelFunc
	done    chan struct{}

	mu    sync.Mutex // guards the fields below
	log   bytes.Buffer
	dials []netip.AddrPort
	hits  []string // "METHOD host path" of requests that reached a server
	conns int      // connections to servers
}

// Write collects the audit log.
func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (w *world) events() []audit.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	var events []audit.Event
	for line := range strings.Lines(w.log.String()) {
		var e audit.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			w.t.Errorf("audit line %q: %v", line, err)
		}
		events = append(events, e)
	}
	return events
}

// waitEvent waits until an event fits; requests are recorded at their very end.
func (w *world) waitEvent(fits func(audit.Event) bool) audit.Event {
	w.t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		events := w.events()
		for _, e := range events {
			if fits(e) {
				return e
			}
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("no such event in %+v", events)
		}
		time.Sleep(time.Millisecond)
	}
}

func (w *world) seen() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.hits...)
}

// LookupNetIP implements Resolver: the internet's names.
func (w *world) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	names := map[string][]string{
		"api.test": {"8.0.0.1"}, "other.test": {"8.0.0.2"}, "inside.test": {"127.0.0.1"}, "mixed.test": {"8.0.0.1", "10.0.0.1"},
		"mapped.test": {"::ffff:169.254.169.254"}, "self.test": {"8.0.0.99"}, "exempt.test": {"10.0.0.7"}, "wrongcert.test": {"8.0.0.1"},
	}
	var addrs []netip.Addr
	for _, text := range names[host] {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	if addrs == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

// newWorld starts everything. Port 80 of every address is a plain server, every
// other port a TLS server; both run h.
func newWorld(t *testing.T, network policy.Network, h http.HandlerFunc) *world {
	t.Helper()
	return newWorldServing(t, network, h, false)
}

// newWorldServing is newWorld; the servers speak HTTP/2 as well if asked to.
func newWorldServing(t *testing.T, network policy.Network, h http.HandlerFunc, http2 bool) *world {
	t.Helper()
	testenv.CheckLeaks(t)
	w := &world{t: t}
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.hits = append(w.hits, r.Method+" "+r.Host+" "+r.URL.RequestURI())
		w.mu.Unlock()
		h(rw, r)
	})
	internetCA, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	plain, secure := httptest.NewUnstartedServer(handler), httptest.NewUnstartedServer(handler)
	for _, s := range []*httptest.Server{plain, secure} {
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				w.mu.Lock()
				w.conns++
				w.mu.Unlock()
			}
		}
		s.Config.ErrorLog = nil
	}
	byAddress, err := internetCA.leaf("8.0.0.5")
	if err != nil {
		t.Fatal(err)
	}
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{*byAddress}, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if hello.ServerName == "wrongcert.test" {
			return internetCA.leaf("somebody.else")
		}
		return internetCA.leaf(hello.ServerName)
	}}
	secure.EnableHTTP2 = http2
	plain.Config.Protocols = new(http.Protocols)
	plain.Config.Protocols.SetHTTP1(true)
	plain.Config.Protocols.SetUnencryptedHTTP2(http2)
	plain.Start()
	secure.StartTLS()
	roots := x509.NewCertPool()
	roots.AddCert(internetCA.cert)
	w.gateway, err = New(Config{
		Policy: network, Audit: audit.New(w), Resolver: w, RootCAs: roots,
		HostAddrs: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("8.0.0.99")}, nil },
		Dialer: func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
			w.mu.Lock()
			w.dials = append(w.dials, addr)
			w.mu.Unlock()
			server := secure
			if addr.Port() == 80 {
				server = plain
			}
			var d net.Dialer
			return d.DialContext(ctx, network, server.Listener.Addr().String())
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.plugIn(func() { plain.Close(); secure.Close() })
	return w
}

func (w *world) plugIn(closeServers func()) {
	var err error
	if w.guest, err = netstacktest.New(); err != nil {
		w.t.Fatal(err)
	}
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	w.cancel, w.done = cancel, done
	var group sync.WaitGroup
	group.Go(func() {
		defer close(done)
		if err := w.gateway.Run(ctx, near); err != nil {
			w.t.Errorf("gateway: %v", err)
		}
	})
	group.Go(func() { _ = w.guest.Run(ctx, far) })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.gateway.CACertPEM())
	transport := &http.Transport{DialContext: w.guest.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots}, DisableCompression: true}
	w.client = &http.Client{Transport: transport, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	w.t.Cleanup(func() {
		transport.CloseIdleConnections()
		cancel()
		group.Wait()
		closeServers()
		w.mu.Lock()
		defer w.mu.Unlock()
		if strings.Contains(w.log.String(), secretValue) {
			w.t.Errorf("the audit log has the secret:\n%s", w.log.String())
		}
	})
}

// reply is a response that was read and closed.
type reply struct {
	StatusCode      int
	Header, Trailer http.Header
	host            string // of the request
}

// do sends a request and returns the response and its body.
func (w *world) do(method, url string, edit func(*http.Request)) (reply, string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), method, url, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if edit != nil {
		edit(r)
	}
	resp, err := w.client.Do(r)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, url, err)
	}
	return reply{resp.StatusCode, resp.Header, resp.Trailer, r.URL.Hostname()}, string(body)
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

func tokenNetwork() policy.Network {
	return policy.Network{
		Allow: []policy.Rule{
			{Host: "api.test", Ports: []int{80, 443, 8443}},
			{Host: "other.test"},
			{Host: "inside.test"},
			{Host: "mixed.test"},
			{Host: "mapped.test"},
			{Host: "self.test"},
			{Host: "exempt.test"},
			{Host: "wrongcert.test"},
			{Host: "absent.test"},
			{Host: "169.254.169.254"},
			{Host: "8.0.0.5"},
			{Host: "localhost"},
			{Host: "read.test", Methods: []string{"GET"}},
		},
		AllowInternal: []string{"exempt.test"},
		Secrets:       map[string]policy.Secret{"TOKEN": {Hosts: []string{"api.test", "api.test:8443"}, Value: secretValue}},
	}
}

func TestAllowedAndDenied(t *testing.T) {
	w := newWorld(t, tokenNetwork(), hello)
	for _, url := range []string{"https://api.test/x?q=1", "http://other.test/", "https://api.test:8443/", "https://exempt.test/", "https://API.test./", "http://8.0.0.5/", "https://8.0.0.5/"} {
		if resp, body := w.do("GET", url, nil); resp.StatusCode != 200 || body != "hello" {
			t.Errorf("%s: %d %q", url, resp.StatusCode, body)
		}
	}
	e := w.waitEvent(func(e audit.Event) bool { return e.Kind == audit.Response && e.Path == "/x" })
	if e.Decision != audit.Allow || e.Rule != "api.test 80,443,8443" || e.Status != 200 || e.Received != 5 || e.Host != "api.test" || e.Port != 443 {
		t.Errorf("event = %+v", e)
	}
	asked := w.waitEvent(func(r audit.Event) bool { return r.Kind == audit.Request && r.Path == "/x" })
	if asked.Request != e.Request || asked.Seq >= e.Seq || asked.Decision != audit.Allow || asked.Status != 0 {
		t.Errorf("request = %+v, response = %+v", asked, e)
	}
	allowed := len(w.seen())
	for url, reason := range map[string]string{
		"https://evil.example/a?b=c":        "gondolin: denied: GET https://evil.example:443/a: no rule allows host evil.example:443 (allow it with --allow-host evil.example)\n",
		"http://evil.example/":              "no rule allows host evil.example:80",
		"https://other.test:8443/":          "no rule allows host other.test:8443 (allow it with --allow-host other.test:8443)",
		"http://169.254.169.254/latest":     "address 169.254.169.254 of host 169.254.169.254 is internal (link local",
		"https://10.1.2.4/":                 "no rule allows host 10.1.2.4:443",
		"http://10.1.2.3/":                  "no rule allows host 10.1.2.3:80",
		"http://inside.test/":               "address 127.0.0.1 of host inside.test is internal (loopback",
		"https://mixed.test/":               "address 10.0.0.1 of host mixed.test is internal",
		"https://mapped.test/":              "address 169.254.169.254 of host mapped.test is internal",
		"https://self.test/":                "address 8.0.0.99 of host self.test is internal",
		"https://sub.api.test/":             "no rule allows host sub.api.test:443",
		"https://api.test.evil.example:443": "no rule allows host api.test.evil.example:443",
	} {
		resp, body := w.do("GET", url, nil)
		if resp.StatusCode != 403 || !strings.Contains(body, reason) {
			t.Errorf("%s: %d %q", url, resp.StatusCode, body)
		}
		host := resp.host
		w.waitEvent(func(e audit.Event) bool {
			return (e.Kind == audit.Request || e.Kind == audit.Response) && e.Decision == audit.Deny && e.Host == host && e.Reason != ""
		})
	}
	if resp, body := w.do("POST", "https://read.test/", nil); resp.StatusCode != 403 || !strings.Contains(body, "does not cover") || strings.Contains(body, "--allow-host") {
		t.Errorf("POST: %d %q", resp.StatusCode, body)
	}
	if got := w.seen(); len(got) != allowed {
		t.Errorf("a server saw a denied request: %q", got[allowed:])
	}
	for url, want := range map[string]string{"https://wrongcert.test/": "its certificate is not trusted\n", "https://absent.test/": "no such host\n"} {
		if resp, body := w.do("GET", url, nil); resp.StatusCode != 502 || !strings.HasSuffix(body, want) {
			t.Errorf("%s: %d %q", url, resp.StatusCode, body)
		}
	}
	w.waitEvent(func(e audit.Event) bool { // what the guest is not told
		return e.Host == "wrongcert.test" && strings.Contains(e.Reason, "certificate is valid for somebody.else")
	})
	w.waitEvent(func(e audit.Event) bool { return e.Kind == audit.DNS && e.Name == "evil.example" && e.Address != "" })
}

func TestZeroPolicyDeniesWithReason(t *testing.T) {
	w := newWorld(t, policy.Network{}, hello)
	if resp, body := w.do("GET", "https://api.test/", nil); resp.StatusCode != 403 || !strings.Contains(body, "no rule allows host api.test:443") {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	if _, err := w.guest.DialContext(t.Context(), "tcp", "api.test:22"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("port 22: %v", err)
	}
	w.waitEvent(func(e audit.Event) bool {
		return e.Kind == audit.Connection && e.Port == 22 && e.Decision == audit.Deny
	})
	if _, err := w.guest.Dial(t.Context(), netip.MustParseAddrPort("198.18.200.200:443")); err == nil {
		t.Error("an address that stands for no name was accepted")
	}
}

func TestNamesMustAgree(t *testing.T) {
	w := newWorld(t, tokenNetwork(), hello)
	for _, host := range []string{"other.test", "localhost", "127.0.0.1", "api.test:8443", "api.test:80", "api.test:x", "a b"} {
		resp, body := w.do("GET", "https://api.test/host", func(r *http.Request) { r.Host = host })
		if resp.StatusCode != 403 && resp.StatusCode != 400 {
			t.Errorf("Host %q: %d %q", host, resp.StatusCode, body)
		}
	}
	// TLS for one name on a connection for another.
	transport, ok := w.client.Transport.(*http.Transport)
	if !ok {
		t.Fatal("no transport")
	}
	fronted := transport.Clone()
	defer fronted.CloseIdleConnections()
	fronted.TLSClientConfig.ServerName = "other.test"
	for _, host := range []string{"api.test", "other.test"} {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://api.test/front", nil)
		r.Host = host
		resp, err := fronted.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 403 || !strings.Contains(string(body), "TLS server name other.test is not the host api.test") {
			t.Errorf("SNI: %d %q", resp.StatusCode, body)
		}
	}
	for _, target := range []string{"http://other.test/", "https://api.test/", "ftp://api.test/"} {
		raw := w.raw("api.test:80", "GET "+target+" HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(raw, "HTTP/1.1 403") && !strings.HasPrefix(raw, "HTTP/1.1 400") && raw != "" {
			t.Errorf("absolute %s: %q", target, raw)
		}
	}
	if raw := w.raw("api.test:80", "GET http://api.test/abs HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(raw, "HTTP/1.1 200") {
		t.Errorf("absolute form: %q", raw)
	}
	for _, hit := range w.seen() {
		if hit != "GET api.test /abs" {
			t.Errorf("a server saw %q", hit)
		}
	}
}

// raw sends text and returns all that comes back until the end.
func (w *world) raw(address, text string) string {
	w.t.Helper()
	conn, err := w.guest.DialContext(w.t.Context(), "tcp", address)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, text); err != nil {
		w.t.Logf("write: %v", err)
	}
	got, _ := io.ReadAll(conn)
	return string(got)
}

func TestOddRequests(t *testing.T) {
	w := newWorld(t, tokenNetwork(), hello)
	for text, want := range map[string]string{
		"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nConnection: close\r\n\r\n":       "HTTP/1.1 403",
		"OPTIONS * HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n":                      "HTTP/1.1 501",
		"GET / HTTP/1.1\r\nHost: api.test\r\nUpgrade: h2c\r\nConnection: Upgrade, close\r\n\r\n": "HTTP/1.1 501",
		"GET / HTTP/1.1\r\n\r\n": "HTTP/1.1 400",
		"GET / HTTP/1.0\r\n\r\n": "HTTP/1.0 403",
		"GET / HTTP/1.1\r\nHost: api.test\r\nHost: other.test\r\n\r\n":                        "HTTP/1.1 400",
		"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n": "HTTP/1.1 400",
		"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked, identity\r\n\r\n":   "HTTP/1.1 400",
		"GET / HTTP/1.1\r\nHost : api.test\r\n\r\n":                                           "HTTP/1.1 400",
		"GET / HTTP/1.1\r\nHost: api.test\r\nX: " + strings.Repeat("a", 70<<10) + "\r\n\r\n":  "HTTP/1.1 431",
		"SSH-2.0-OpenSSH_9.2\r\n": "",
		"EHLO mail\r\n":           "",
		"\x00\x01\x02\x03":        "",
	} {
		got := w.raw("api.test:80", text)
		if want == "" && got != "" || !strings.HasPrefix(got, want) {
			t.Errorf("%.60q: %q", text, got)
		}
	}
	w.waitEvent(func(e audit.Event) bool { return e.Kind == audit.Connection && e.Reason == "not HTTP or TLS" })
	if got := w.seen(); len(got) != 0 {
		t.Errorf("a server saw %q", got)
	}
}

func TestGatewayDoesNotPrintSecrets(t *testing.T) {
	g, err := New(Config{Policy: tokenNetwork(), Audit: audit.New(io.Discard)})
	if err != nil {
		t.Fatal(err)
	}
	s := newSession(t.Context(), g)
	for _, v := range []any{g, *g, g.vault, *g.vault, g.vault.entries, s, g.audit, *g.audit, Config{Policy: tokenNetwork()}, &exchange{}} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if text := fmt.Sprintf(format, v); strings.Contains(text, secretValue) || strings.Contains(text, fmt.Sprintf("%x", secretValue)) {
				t.Errorf("%T with %s prints the secret", v, format)
			}
		}
	}
	p := g.Env()["TOKEN"]
	if len(p) != len(placeholderPrefix)+48 || !strings.HasPrefix(p, placeholderPrefix) {
		t.Errorf("placeholder %q", p)
	}
	if other, _ := New(Config{Policy: tokenNetwork()}); other == nil || other.Env()["TOKEN"] == p {
		t.Error("two sandboxes share a placeholder")
	}
}

func TestAuditFailureStopsRequests(t *testing.T) {
	g, err := New(Config{Policy: tokenNetwork(), Audit: audit.New(failingWriter{})})
	if err != nil {
		t.Fatal(err)
	}
	s := newSession(t.Context(), g)
	q := policy.Request{Scheme: "https", Host: "api.test", Port: 443, Method: "GET", Path: "/"}
	if _, d := s.decide(q); d != nil {
		t.Error(d)
	}
	g.record(audit.Event{Kind: audit.DNS})
	if _, d := s.decide(q); d == nil || d.status != http.StatusServiceUnavailable {
		t.Errorf("decide = %v", d)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }
