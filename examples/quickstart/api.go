package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"gondolin"
)

// api stands in for https://api.example.com: an HTTPS server on loopback that
// answers who knows the key.
type api struct {
	key      string
	server   *http.Server
	listener net.Listener
	roots    *x509.CertPool

	mu       sync.Mutex
	received string // the last Authorization header
}

func startAPI(key string) (*api, error) {
	a := &api{key: key, roots: x509.NewCertPool()}
	cert, err := a.certificate()
	if err != nil {
		return nil, fmt.Errorf("cannot make a certificate: %w", err)
	}
	a.listener, err = net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // nothing to cancel
	if err != nil {
		return nil, fmt.Errorf("cannot start the API: %w", err)
	}
	a.server = &http.Server{
		Handler:           a,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 10 * time.Second,
	}
	go func() { _ = a.server.ServeTLS(a.listener, "", "") }()
	return a, nil
}

func (a *api) certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"api.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
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

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	auth := r.Header.Get("Authorization")
	a.mu.Lock()
	a.received = auth
	a.mu.Unlock()
	if auth != "Bearer "+a.key {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	fmt.Fprintln(w, "you are the owner of the key")
}

// Received returns the last Authorization header the server saw.
func (a *api) Received() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.received
}

// Upstream leads api.example.com:443 to this server.
func (a *api) Upstream() gondolin.Upstream {
	return gondolin.Upstream{Resolver: a, DialContext: a.dial, RootCAs: a.roots}
}

// LookupNetIP implements gondolin.Resolver.
func (a *api) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

func (a *api) dial(ctx context.Context, network string, _ netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, a.listener.Addr().String())
}

// Close stops the server.
func (a *api) Close() { a.server.Close() }
