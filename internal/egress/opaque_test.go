package egress

import (
	"slices"
	"strings"
	"testing"
)

// TestOpaqueTargets sends the targets that url.Parse takes for opaque: they go
// out as they stand, so a path rule would judge another path than the server's,
// and "http:http://other/" would name another host than the Host header.
func TestOpaqueTargets(t *testing.T) {
	w := newWorld(t, tokenNetwork(), hello)
	for _, target := range []string{"http:secret", "http:http://other.test/secret", "http:other.test/secret", "HTTP:?q"} {
		got := w.raw("api.test:80", "GET /first HTTP/1.1\r\nHost: api.test\r\n\r\n"+
			"GET "+target+" HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n")
		if strings.Count(got, "HTTP/1.1 200") != 1 || !strings.Contains(got, "HTTP/1.1 4") {
			t.Errorf("%s: %q", target, got)
		}
	}
	hits := w.seen()
	if slices.ContainsFunc(hits, func(hit string) bool { return hit != "GET api.test /first" }) {
		t.Errorf("a server saw %q", hits)
	}
}
