package policy_test

import (
	"strings"
	"testing"

	"gondolin/policy"
)

func compile(t *testing.T, n policy.Network) *policy.Engine {
	t.Helper()
	e, err := policy.Compile(n)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestZeroNetworkAllowsNothing(t *testing.T) {
	e := compile(t, policy.Network{})
	if d := e.Request(policy.Request{Scheme: "https", Host: "example.com", Port: 443, Method: "GET", Path: "/"}); d.Allowed || d.Reason != "no rule allows host example.com:443" {
		t.Errorf("Request = %+v", d)
	}
	if d := e.Connect("example.com", 443); d.Allowed {
		t.Errorf("Connect = %+v", d)
	}
}

func TestHostPatterns(t *testing.T) {
	tests := []struct {
		pattern string
		yes, no []string
	}{
		{"API.example.com.", []string{"api.example.com"}, []string{"example.com", "x.api.example.com", "api.example.com.evil.test"}},
		{"*.example.com", []string{"a.example.com", "a.b.example.com"}, []string{"example.com", "evilexample.com", ".example.com"}},
		{"*", []string{"example.com", "localhost"}, []string{"8.8.8.8", "2606:4700::1111"}},
		{"bücher.example", []string{"xn--bcher-kva.example"}, []string{"bucher.example"}},
		{"*.bücher.example", []string{"a.xn--bcher-kva.example"}, []string{"xn--bcher-kva.example"}},
		{"8.8.8.8", []string{"8.8.8.8"}, []string{"8.8.8.9"}},
		{"::ffff:8.8.8.8", []string{"8.8.8.8"}, nil},
		{"[2606:4700:0::1111]", []string{"2606:4700::1111"}, nil},
		{"a_b.example", []string{"a_b.example"}, nil},
	}
	for _, tt := range tests {
		e := compile(t, policy.Network{Allow: []policy.Rule{{Host: tt.pattern}}})
		for _, h := range tt.yes {
			if d := e.Connect(h, 443); !d.Allowed {
				t.Errorf("%q does not match %q: %s", tt.pattern, h, d.Reason)
			}
		}
		for _, h := range tt.no {
			if d := e.Connect(h, 443); d.Allowed {
				t.Errorf("%q matches %q", tt.pattern, h)
			}
		}
	}
}

func TestPatternErrorsNameThePattern(t *testing.T) {
	for _, p := range []string{
		"", "https://example.com", "example.com/path", "a..b", ".", "..", "*.", ".*", "*.*", "*.*.com", "a.*.com", "*example.com",
		"exa mple.com", "user@example.com", "example.com:0", "example.com:65536", "example.com:http", "example.com:", "host:+80",
		strings.Repeat("a", 64) + ".com", strings.Repeat("a.", 127) + "com", "127.1", "0x7f.0x1", "2130706433", "fe80::1%eth0", "a\x00b", "-\xff",
	} {
		_, err := policy.Compile(policy.Network{Allow: []policy.Rule{{Host: p}}})
		if err == nil {
			t.Errorf("pattern %q was accepted", p)
		} else if !strings.HasPrefix(err.Error(), "cannot ") {
			t.Errorf("error %q does not begin with cannot", err)
		}
	}
}

func TestRulePortsMethodsPaths(t *testing.T) {
	e := compile(t, policy.Network{Allow: []policy.Rule{
		{Host: "api.test:8443"},
		{Host: "two.test", Ports: []int{80, 8080}},
		{Host: "read.test", Methods: []string{"GET", "HEAD"}, Paths: []string{"/repos/*", "/user"}},
	}})
	req := func(host string, port int, method, path string) policy.Request {
		return policy.Request{Scheme: "https", Host: host, Port: port, Method: method, Path: path}
	}
	for _, q := range []policy.Request{
		req("api.test", 8443, "POST", "/x"), req("two.test", 8080, "GET", "/"), req("read.test", 443, "GET", "/repos/a/b"),
		req("read.test", 443, "HEAD", "/user"), req("read.test", 443, "GET", "/repos/"),
	} {
		if d := e.Request(q); !d.Allowed || d.Rule == "" || d.Reason != "" {
			t.Errorf("%+v: %+v", q, d)
		}
	}
	for _, q := range []policy.Request{
		req("api.test", 443, "GET", "/"), req("two.test", 443, "GET", "/"), req("read.test", 443, "POST", "/user"), req("read.test", 443, "GET", "/users"),
		req("read.test", 443, "GET", "/repos/../admin"), req("read.test", 443, "GET", "/repos/%2e%2e/admin"), req("read.test", 443, "GET", "/repos//x"),
		req("read.test", 443, "GET", "/repos/..%2fadmin"), req("read.test", 443, "GET", `/repos/..\admin`), req("read.test", 443, "GET", "/repos/%252e%252e/x"),
		req("read.test", 443, "GET", "/repos/..;/admin"), req("read.test", 443, "GET", "/repos/%C0%AE%c0%ae/admin"), req("read.test", 443, "GET", "*"), req("read.test", 443, "GET", ""),
	} {
		if d := e.Request(q); d.Allowed || d.Reason == "" || d.Rule == "" && q.Port == 443 && q.Host == "read.test" {
			t.Errorf("%+v: %+v", q, d)
		}
	}
}

func TestRuleErrors(t *testing.T) {
	for _, r := range []policy.Rule{
		{Host: "a.test:1", Ports: []int{2}},
		{Host: "a.test", Ports: []int{0}},
		{Host: "a.test", Ports: []int{65536}},
		{Host: "a.test", Methods: []string{"get"}},
		{Host: "a.test", Paths: []string{"x"}},
		{Host: "a.test", Paths: []string{"/a*b"}},
		{Host: "a.test", Paths: []string{"/../x"}},
		{Host: "a.test", Paths: []string{"/x?y"}},
	} {
		if _, err := policy.Compile(policy.Network{Allow: []policy.Rule{r}}); err == nil {
			t.Errorf("rule %+v was accepted", r)
		}
	}
}

func FuzzHostPattern(f *testing.F) {
	for _, s := range []string{"*.example.com", "*", "a.b:80", "[::1]:443", "bücher.example", "1.2.3.4", "*.", "a..b"} {
		f.Add(s, "x.example.com")
	}
	f.Fuzz(func(t *testing.T, pattern, host string) {
		canonical, hostErr := policy.CanonicalHost(host)
		if hostErr == nil {
			again, err := policy.CanonicalHost(canonical)
			if err != nil || again != canonical {
				t.Fatalf("CanonicalHost(%q) = %q, then %q, %v", host, canonical, again, err)
			}
		}
		e, err := policy.Compile(policy.Network{Allow: []policy.Rule{{Host: pattern, Ports: nil}}})
		if err != nil || hostErr != nil {
			return
		}
		// A match must be explained by the pattern's own text.
		if d := e.Connect(canonical, 443); d.Allowed {
			p := strings.ToLower(strings.TrimSuffix(pattern, ":443"))
			suffix, wild := strings.CutPrefix(p, "*")
			if wild && !strings.HasSuffix(canonical, strings.TrimSuffix(suffix, ".")) && isASCII(suffix) {
				t.Fatalf("pattern %q matched %q", pattern, canonical)
			}
		}
	})
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}
