package egress

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestClassify(t *testing.T) {
	tests := map[string]protocol{
		"":                               protocolUndecided,
		"\x16":                           protocolUndecided,
		"\x16\x03":                       protocolTLS,
		"\x16\x02":                       protocolOther,
		"G":                              protocolUndecided,
		"GET ":                           protocolUndecided,
		"GET /":                          protocolHTTP,
		"get /":                          protocolHTTP,
		"PROPFIND /x":                    protocolHTTP,
		"VERSION-CONTROL /":              protocolHTTP,
		"OPTIONS *":                      protocolHTTP,
		"GET ht":                         protocolUndecided,
		"GET HTTP://a":                   protocolHTTP,
		"GET https://a":                  protocolHTTP,
		"CONNECT a:443":                  protocolHTTP,
		"GET foo":                        protocolOther,
		"EHLO mail":                      protocolOther,
		"SSH-2.0-x":                      protocolOther,
		" GET /":                         protocolOther,
		"\r\nGET /":                      protocolOther,
		"\x00":                           protocolOther,
		strings.Repeat("A", maxMethod+1): protocolOther,
	}
	for text, want := range tests {
		if got := classify([]byte(text)); got != want {
			t.Errorf("classify(%q) = %d, want %d", text, got, want)
		}
	}
}

func FuzzClassify(f *testing.F) {
	for _, s := range []string{"GET / HTTP/1.1\r\n", "\x16\x03\x01\x02\x00", "CONNECT x:1", "GET http:/", "SSH-2.0-"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		decided := protocolUndecided
		for n := range len(b) + 1 { // more bytes never change a decision
			p := classify(b[:n])
			if decided != protocolUndecided && p != decided {
				t.Fatalf("%d bytes of %q: %d, before %d", n, b, p, decided)
			}
			decided = p
		}
		kind, first, err := peek(iotest.OneByteReader(bytes.NewReader(b)))
		if kind == protocolUndecided || len(first) > peekSize || !bytes.HasPrefix(b, first) || (kind == protocolOther) != (err != nil || classify(first) == protocolOther) {
			t.Fatalf("peek(%q) = %d, %q, %v", b, kind, first, err)
		}
	})
}

func FuzzSplitHost(f *testing.F) {
	for _, s := range []string{"a.test", "a.test:80", "[::1]:443", "::1", "1.2.3.4:x", "[a]", ":", "A.TEST.:443"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		host, port, err := splitHost(text, "https")
		if err != nil {
			return
		}
		again, _, err := splitHost(host, "https")
		if strings.Contains(host, ":") {
			again, _, err = splitHost("["+host+"]", "https")
		}
		if err != nil || again != host || port < 0 || port > 65535 {
			t.Fatalf("splitHost(%q) = %q %d, then %q, %v", text, host, port, again, err)
		}
	})
}

func TestAuthority(t *testing.T) {
	a, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(a.pem()) {
		t.Fatal("the PEM cannot be read")
	}
	for _, name := range []string{"api.test", "192.0.2.7", "2001:db8::1", strings.Repeat("a.", 125) + "test"} {
		cert, err := a.leaf(name)
		if err != nil {
			t.Fatal(err)
		}
		verify := name
		if strings.Contains(name, ":") {
			verify = "[" + name + "]"
		}
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: verify, Roots: pool}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(cert.Leaf.AuthorityKeyId, a.cert.SubjectKeyId) || len(cert.Leaf.SubjectKeyId) == 0 || time.Until(cert.Leaf.NotBefore) > -backdate/2 {
			t.Errorf("%s: leaf %+v", name, cert.Leaf.NotBefore)
		}
		if again, _ := a.leaf(name); again != cert {
			t.Errorf("%s: not cached", name)
		}
	}
	for i := range maxLeaves + 10 {
		if _, err := a.leaf(fmt.Sprintf("n%d.test", i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.leaves) != maxLeaves || a.recent.Len() != maxLeaves {
		t.Errorf("%d leaves are kept", len(a.leaves))
	}
}
