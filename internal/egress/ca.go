package egress

import (
	"container/list"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"
)

// authority issues certificates that only this sandbox trusts. It lives in
// memory alone and dies with the sandbox.
type authority struct {
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	leafKey *ecdsa.PrivateKey // one for all leaves: they differ in name only

	mu     sync.Mutex // guards the fields below
	leaves map[string]*list.Element
	recent list.List // of *leaf, most recent first
}

type leaf struct {
	name string
	cert *tls.Certificate
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make the sandbox's CA key: %w", err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make the sandbox's TLS key: %w", err)
	}
	template, err := newTemplate(&key.PublicKey, caLife)
	if err != nil {
		return nil, err
	}
	template.Subject = pkix.Name{CommonName: "Gondolin sandbox CA", Organization: []string{"Gondolin"}}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("cannot make the sandbox's CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("cannot read back the sandbox's CA: %w", err)
	}
	return &authority{cert: cert, key: key, leafKey: leafKey, leaves: make(map[string]*list.Element)}, nil
}

// newTemplate fills what all certificates have. The key identifier is SHA-256
// of the key, cut to 20 bytes (RFC 7093 section 2).
func newTemplate(key *ecdsa.PublicKey, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("cannot make a serial number: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("cannot encode a public key: %w", err)
	}
	id := sha256.Sum256(der)
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), // never zero
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(life),
		SubjectKeyId: id[:20],
	}, nil
}

// pem returns the CA's certificate for the guest's trust store.
func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// leaf returns a certificate for a canonical host name or address.
func (a *authority) leaf(name string) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e, ok := a.leaves[name]; ok {
		if l, ok := e.Value.(*leaf); ok && time.Until(l.cert.Leaf.NotAfter) > leafLife/2 {
			a.recent.MoveToFront(e)
			return l.cert, nil
		}
		a.recent.Remove(e)
		delete(a.leaves, name)
	}
	cert, err := a.issue(name)
	if err != nil {
		return nil, err
	}
	a.leaves[name] = a.recent.PushFront(&leaf{name: name, cert: cert})
	if a.recent.Len() > maxLeaves {
		if l, ok := a.recent.Remove(a.recent.Back()).(*leaf); ok {
			delete(a.leaves, l.name)
		}
	}
	return cert, nil
}

func (a *authority) issue(name string) (*tls.Certificate, error) {
	template, err := newTemplate(&a.leafKey.PublicKey, leafLife)
	if err != nil {
		return nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	template.Subject.Organization = []string{"Gondolin"}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &a.leafKey.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("cannot issue a certificate for %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("cannot read back the certificate for %s: %w", name, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.leafKey, Leaf: cert}, nil
}
