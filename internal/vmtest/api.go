package vmtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"gondolin"
)

// API is an HTTPS server on loopback that the names it was made for lead to, on
// port 443, and a plain HTTP one for port 80. It keeps every request.
type API struct {
	tls, plain *httptest.Server
	roots      *x509.CertPool
	names      map[string]netip.Addr

	mu       sync.Mutex
	requests []*http.Request
}

// NewAPI starts the servers; they end with the test. handler may be nil: it
// then answers "ok". Every name resolves to 127.0.0.1.
func NewAPI(t testing.TB, handler http.Handler, names ...string) *API {
	t.Helper()
	if handler == nil {
		handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	}
	a := &API{roots: x509.NewCertPool(), names: make(map[string]netip.Addr)}
	for _, name := range names {
		a.names[name] = netip.MustParseAddr("127.0.0.1")
	}
	record := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.requests = append(a.requests, r)
		a.mu.Unlock()
		handler.ServeHTTP(w, r)
	})
	cert, err := a.certificate(names)
	if err != nil {
		t.Fatal(err)
	}
	a.plain = httptest.NewServer(record)
	a.tls = httptest.NewUnstartedServer(record)
	a.tls.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	a.tls.EnableHTTP2 = true
	a.tls.StartTLS()
	t.Cleanup(a.plain.Close)
	t.Cleanup(a.tls.Close)
	return a
}

// certificate makes a self-signed certificate and trusts it.
func (a *API) certificate(names []string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "test server"},
		DNSNames:     names,
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	a.roots.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// Upstream leads the server's names, and only them, to it.
func (a *API) Upstream() gondolin.Upstream {
	return gondolin.Upstream{Resolver: a, RootCAs: a.roots, DialContext: a.dial}
}

// LookupNetIP implements gondolin.Resolver.
func (a *API) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if addr, ok := a.names[host]; ok {
		return []netip.Addr{addr}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// dial leads ports 443 and 80 of loopback to the servers.
func (a *API) dial(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	servers := map[string]*httptest.Server{"127.0.0.1:443": a.tls, "127.0.0.1:80": a.plain}
	server := servers[addr.String()]
	if server == nil {
		return nil, fmt.Errorf("no test server at %s", addr)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, server.Listener.Addr().String())
}

// Requests returns the requests so far.
func (a *API) Requests() []*http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]*http.Request(nil), a.requests...)
}
