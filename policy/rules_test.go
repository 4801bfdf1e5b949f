package policy_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"gondolin/policy"
)

func get(host string, path string) policy.Request {
	return policy.Request{Scheme: "https", Host: host, Port: 443, Method: "GET", Path: path}
}

// TestFirstMatchDecides has rules that refuse before and after rules that allow.
func TestFirstMatchDecides(t *testing.T) {
	e := compile(t, policy.Network{
		Rules: []policy.Rule{
			{Host: "api.test", Paths: []string{"/open/admin"}},
			{Host: "api.test", Paths: []string{"/admin/*", "/open/*/admin"}, Deny: "administration is for people"},
			{Host: "*.bad.test", Deny: "not here"},
			{Host: "203.0.113.0/24", Methods: []string{"GET"}},
			{Host: "2001:db8::/32", Schemes: []string{"https"}},
		},
		Allow: []policy.Rule{{Host: "api.test"}, {Host: "*"}},
	})
	for _, q := range []policy.Request{
		get("api.test", "/open/admin"), get("api.test", "/admin"), get("api.test", "/open/x/y/admin"), get("bad.test", "/"), get("203.0.113.9", "/"), get("2001:db8::1", "/"),
	} {
		if d := e.Request(q); !d.Allowed || d.Rule == "" || !e.Allows(q) {
			t.Errorf("%+v: %+v", q, d)
		}
	}
	post, plain := get("203.0.113.9", "/"), get("2001:db8::1", "/")
	post.Method, plain.Scheme, plain.Port = "POST", "http", 80
	for _, tt := range []struct {
		q    policy.Request
		code policy.Code
	}{
		{get("api.test", "/admin/x"), policy.CodeDenied},
		{get("api.test", "/ADMIN/x"), policy.CodeDenied}, // what a server may take for the same
		{get("api.test", "/%61dmin/x"), policy.CodeDenied},
		{get("api.test", "/open/x/admin"), policy.CodeDenied},
		{get("api.test", "/open/../admin/x"), policy.CodeDenied}, // unusual: it may be
		{get("api.test", "//admin/x"), policy.CodeDenied},
		{get("api.test", "/x%2fadmin"), policy.CodeDenied},
		{get("a.bad.test", "/"), policy.CodeDenied},
		{get("203.0.114.1", "/"), policy.CodeNoRule}, // "*" has no addresses
		{post, policy.CodeMethod},
		{plain, policy.CodeScheme},
	} {
		d := e.Request(tt.q)
		if d.Allowed || d.Code != tt.code || d.Reason == "" || e.Allows(tt.q) {
			t.Errorf("%+v: %+v", tt.q, d)
		}
		if (d.Fix == "") != (tt.code == policy.CodeDenied) {
			t.Errorf("%+v: fix %q", tt.q, d.Fix)
		}
	}
	d := e.Request(get("api.test", "/admin/x"))
	if want := `rule "deny api.test /admin/*,/open/*/admin" refuses it: administration is for people`; d.Reason != want || d.Rule != "deny api.test /admin/*,/open/*/admin" {
		t.Errorf("%+v", d)
	}
	if d := e.Connect("x.bad.test", 443); d.Allowed || d.Code != policy.CodeDenied {
		t.Errorf("%+v", d)
	}
	if d := e.Connect("api.test", 443); !d.Allowed {
		t.Errorf("%+v", d)
	}
}

func TestPathPatterns(t *testing.T) {
	for _, tt := range []struct {
		pattern string
		yes, no []string
	}{
		{"/", []string{"/"}, []string{"/x", "//"}},
		{"/*", []string{"/", "/x", "/x/y"}, []string{"/../x"}},
		{"/a/*", []string{"/a/", "/a/b", "/a/b/c"}, []string{"/a", "/ab", "/A/b"}},
		{"/a/*/c", []string{"/a/b/c"}, []string{"/a/c", "/a//c", "/a/b/c/", "/a/b/b/c"}},
		{"/a/*/*", []string{"/a/b/", "/a/b/c/d"}, []string{"/a/b"}},
		{"/a/", []string{"/a/"}, []string{"/a", "/a/b"}},
		{"/%7Ea", []string{"/%7Ea"}, []string{"/~a"}},
	} {
		e := compile(t, policy.Network{Allow: []policy.Rule{{Host: "a.test", Paths: []string{tt.pattern}}}})
		for _, p := range tt.yes {
			if d := e.Request(get("a.test", p)); !d.Allowed {
				t.Errorf("%s does not match %s", tt.pattern, p)
			}
		}
		for _, p := range tt.no {
			if d := e.Request(get("a.test", p)); d.Allowed || d.Code != policy.CodePath {
				t.Errorf("%s matches %s", tt.pattern, p)
			}
		}
	}
}

func TestRulesThatCannotBe(t *testing.T) {
	for name, n := range map[string]policy.Network{
		"deny in Allow":    {Allow: []policy.Rule{{Host: "a.test", Deny: "no"}}},
		"bound on deny":    {Rules: []policy.Rule{{Host: "a.test", Deny: "no", MaxRequest: 1}}},
		"negative bound":   {Rules: []policy.Rule{{Host: "a.test", MaxResponse: -1}}},
		"scheme":           {Rules: []policy.Rule{{Host: "a.test", Schemes: []string{"HTTPS"}}}},
		"host bits":        {Rules: []policy.Rule{{Host: "192.0.2.1/24"}}},
		"mapped range":     {Rules: []policy.Rule{{Host: "::ffff:1.0.0.0/104"}}},
		"range with port":  {Rules: []policy.Rule{{Host: "192.0.2.0/24:80"}}},
		"part of segment":  {Rules: []policy.Rule{{Host: "a.test", Paths: []string{"/a*"}}}},
		"too many":         {Rules: make([]policy.Rule, 20_000)},
		"too deep":         deep(20),
		"secret within":    {Within: []policy.Network{secretNetwork()}},
		"secret range":     {Allow: []policy.Rule{{Host: "192.0.2.0/24"}}, Secrets: map[string]policy.Secret{"A": {Hosts: []string{"192.0.2.0/24"}, Value: value}}},
		"secret over http": {Allow: []policy.Rule{{Host: "a.test", Ports: []int{443}, Schemes: []string{"http"}}}, Secrets: aSecret},
		"secret denied":    {Rules: []policy.Rule{{Host: "*.test", Deny: "no"}}, Allow: []policy.Rule{{Host: "a.test"}}, Secrets: aSecret},
		"secret outside":   {Allow: []policy.Rule{{Host: "a.test"}}, Secrets: aSecret, Within: []policy.Network{{Name: "floor", Allow: []policy.Rule{{Host: "b.test"}}}}},
	} {
		if _, err := policy.Compile(n); err == nil || !strings.HasPrefix(err.Error(), "cannot ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

var aSecret = map[string]policy.Secret{"A": {Hosts: []string{"a.test"}, Value: value}}

func deep(n int) policy.Network {
	if n == 0 {
		return policy.Network{}
	}
	return policy.Network{Within: []policy.Network{deep(n - 1)}}
}

// TestWithin has a floor that a policy in it cannot widen, in any of its parts.
func TestWithin(t *testing.T) {
	floor := policy.Network{
		Name:          "floor.yaml",
		Rules:         []policy.Rule{{Host: "api.test", Paths: []string{"/admin/*"}, Deny: "never"}, {Host: "*.test", Ports: []int{443, 8443}, MaxRequest: 100, MaxResponse: 50}},
		AllowInternal: []string{"10.0.0.0/8", "db.test"},
	}
	e := compile(t, policy.Network{
		Rules:         []policy.Rule{{Name: "api", Host: "api.test", MaxRequest: 200, MaxResponse: 10}, {Host: "other.example"}, {Host: "db.test"}},
		AllowInternal: []string{"10.1.0.0/16", "172.16.0.0/12", "db.test"},
		Within:        []policy.Network{floor},
	})
	if d := e.Request(get("api.test", "/x")); !d.Allowed || d.Rule != "api" || d.MaxRequest != 100 || d.MaxResponse != 10 {
		t.Errorf("%+v", d)
	}
	for _, q := range []policy.Request{get("api.test", "/admin/x"), get("other.example", "/")} {
		if d := e.Request(q); d.Allowed || d.Policy != "floor.yaml" || !strings.HasPrefix(d.Reason, "floor.yaml: ") || e.Allows(q) {
			t.Errorf("%+v: %+v", q, d)
		}
	}
	if d := e.Request(get("b.test", "/")); d.Allowed || d.Policy != "" { // the floor has it, the policy has not
		t.Errorf("%+v", d)
	}
	if d := e.Connect("other.example", 443); d.Allowed || d.Policy != "floor.yaml" {
		t.Errorf("%+v", d)
	}
	if e.PortAllowed(80) || !e.PortAllowed(443) || e.PortAllowed(8443) {
		t.Error("PortAllowed")
	}
	for addr, want := range map[string]bool{"10.1.2.3": true, "10.2.2.3": false, "172.16.0.1": false, "8.8.8.8": true} {
		if d := e.Address("x.test", netip.MustParseAddr(addr)); d.Allowed != want || !want && d.Code != policy.CodeInternal {
			t.Errorf("%s: %+v", addr, d)
		}
	}
	if d := e.Address("db.test", netip.MustParseAddr("192.168.0.1")); !d.Allowed {
		t.Errorf("%+v", d)
	}
	steps := e.Explain(get("api.test", "/admin/x"))
	if len(steps) != 2 || !steps[0].Decided || steps[0].Outcome != "allows" || steps[1].Policy != "floor.yaml" || steps[1].Outcome != "refuses: never" {
		t.Errorf("%+v", steps)
	}
}

// condition is a Condition made of a function.
type condition func(policy.Request) (bool, error)

func (c condition) Holds(q policy.Request) (bool, error) { return c(q) }
func (condition) String() string                         { return "c" }

func TestConditionsFailClosed(t *testing.T) {
	for name, c := range map[string]condition{
		"error": func(policy.Request) (bool, error) { return true, errors.New("x") },
		"panic": func(policy.Request) (bool, error) { panic("x") },
	} {
		allow := compile(t, policy.Network{Allow: []policy.Rule{{Host: "a.test", When: c}}})
		deny := compile(t, policy.Network{Rules: []policy.Rule{{Host: "a.test", When: c, Deny: "no"}}, Allow: []policy.Rule{{Host: "a.test"}}})
		if d := allow.Request(get("a.test", "/")); d.Allowed || d.Code != policy.CodeCondition {
			t.Errorf("%s: %+v", name, d)
		}
		if d := deny.Request(get("a.test", "/")); d.Allowed || d.Code != policy.CodeDenied {
			t.Errorf("%s: %+v", name, d)
		}
		if steps := allow.Explain(get("a.test", "/")); len(steps) != 1 || !strings.Contains(steps[0].Outcome, ": ") {
			t.Errorf("%s: %+v", name, steps)
		}
	}
}

func TestCheck(t *testing.T) {
	always := condition(func(policy.Request) (bool, error) { return true, nil })
	for name, tt := range map[string]struct {
		rules []policy.Rule
		bad   int // index of the rule that is found, -1: none
	}{
		"wildcard first":    {[]policy.Rule{{Host: "*.a.test"}, {Host: "x.a.test"}}, 1},
		"wildcard last":     {[]policy.Rule{{Host: "x.a.test"}, {Host: "*.a.test"}}, -1},
		"apex":              {[]policy.Rule{{Host: "*.a.test"}, {Host: "a.test"}}, -1},
		"port":              {[]policy.Rule{{Host: "a.test"}, {Host: "a.test", Ports: []int{8443}}}, -1},
		"port in":           {[]policy.Rule{{Host: "a.test"}, {Host: "a.test:443"}}, 1},
		"method":            {[]policy.Rule{{Host: "a.test", Methods: []string{"GET"}}, {Host: "a.test"}}, -1},
		"method in":         {[]policy.Rule{{Host: "a.test"}, {Host: "a.test", Methods: []string{"GET"}}}, 1},
		"path":              {[]policy.Rule{{Host: "a.test", Paths: []string{"/a/*"}}, {Host: "a.test", Paths: []string{"/a/b/*", "/a/c"}}}, 1},
		"path segment":      {[]policy.Rule{{Host: "a.test", Paths: []string{"/a/*/c"}}, {Host: "a.test", Paths: []string{"/a/b/c"}}}, 1},
		"path beside":       {[]policy.Rule{{Host: "a.test", Paths: []string{"/a/*"}}, {Host: "a.test", Paths: []string{"/a"}}}, -1},
		"deny after all":    {[]policy.Rule{{Host: "a.test"}, {Host: "a.test:443", Paths: []string{"/x"}, Deny: "no"}}, 1},
		"deny after path":   {[]policy.Rule{{Host: "a.test", Paths: []string{"/x"}}, {Host: "a.test:443", Paths: []string{"/x"}, Deny: "no"}}, -1}, // it refuses unusual paths
		"allow after deny":  {[]policy.Rule{{Host: "*", Deny: "no"}, {Host: "a.test"}}, 1},
		"condition":         {[]policy.Rule{{Host: "a.test", When: always}, {Host: "a.test"}}, -1},
		"range":             {[]policy.Rule{{Host: "8.0.0.0/8"}, {Host: "8.1.0.0/16"}}, 1},
		"internal address":  {[]policy.Rule{{Host: "10.0.0.1"}}, 0},
		"name that is none": {[]policy.Rule{{Host: "x.onion"}}, 0},
		"deny internal":     {[]policy.Rule{{Host: "10.0.0.1", Deny: "no"}}, -1},
	} {
		found, err := policy.Check(policy.Network{Rules: tt.rules})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if tt.bad < 0 && len(found) > 0 || tt.bad >= 0 && (len(found) != 1 || found[0].Rule != tt.bad || found[0].Problem == "") {
			t.Errorf("%s: %+v", name, found)
		}
	}
}

func TestMeet(t *testing.T) {
	for _, tt := range []struct{ a, b, want string }{
		{"*.a.test", "x.a.test", "x.a.test:443"},
		{"x.a.test:8443", "*.a.test:8443", "x.a.test:8443"},
		{"*.a.test", "*.b.a.test", "*.b.a.test:443"},
		{"*.a.test", "a.test", ""},
		{"a.test", "a.test:8443", ""},
	} {
		got, ok, err := policy.Meet(tt.a, tt.b, 443)
		if err != nil || got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s and %s: %q, %v, %v", tt.a, tt.b, got, ok, err)
		}
	}
}

// TestEvaluationAllocatesNothing is a property, not a timing: the rules decide for
// every packet's worth of work in a request.
func TestEvaluationAllocatesNothing(t *testing.T) {
	e := compile(t, policy.Network{Rules: []policy.Rule{
		{Host: "a.test", Paths: []string{"/x/*/y"}, Deny: "no"}, {Host: "*.b.test"}, {Host: "8.0.0.0/8"}, {Host: "a.test", Methods: []string{"GET"}, Paths: []string{"/a/*"}},
	}})
	for _, q := range []policy.Request{get("a.test", "/a/%41/c"), get("8.8.8.8", "/"), get("2001:db8::1", "/"), get("none.test", "/"), get("a.test", "/x/z/y"), get("a.test", "//")} {
		if n := testing.AllocsPerRun(100, func() { e.Allows(q) }); n != 0 {
			t.Errorf("%+v: %v allocations", q, n)
		}
		if e.Allows(q) {
			if n := testing.AllocsPerRun(100, func() { e.Request(q) }); n != 0 {
				t.Errorf("%+v: %v allocations when allowed", q, n)
			}
		}
	}
}

// FuzzPathPattern compares with an independent, slow reading of the pattern.
func FuzzPathPattern(f *testing.F) {
	for _, s := range [][2]string{{"/a/*", "/a/b"}, {"/a/*/c", "/a/b/c"}, {"/", "/"}, {"/%7e", "/~"}, {"/a/*", "/a/../b"}, {"/*/*", "/a/"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, path string) {
		allow, err := policy.Compile(policy.Network{Allow: []policy.Rule{{Host: "a.test", Paths: []string{pattern}}}})
		if err != nil {
			return
		}
		deny := compile(t, policy.Network{Rules: []policy.Rule{{Host: "a.test", Paths: []string{pattern}, Deny: "no"}}, Allow: []policy.Rule{{Host: "a.test"}}})
		allowed, denied := allow.Allows(get("a.test", path)), !deny.Allows(get("a.test", path))
		if allowed && !denied {
			t.Fatalf("pattern %q allows %q, and does not refuse it", pattern, path)
		}
		if allowed && (!slowMatch(pattern, path) || unusual(path)) {
			t.Fatalf("pattern %q matches %q", pattern, path)
		}
		if slowMatch(pattern, path) && !denied {
			t.Fatalf("pattern %q does not refuse %q", pattern, path)
		}
	})
}

func unusual(path string) bool {
	return strings.Contains(path, "//") || strings.Contains(path+"/", "/../") || strings.ContainsAny(path, "\\;")
}

func slowMatch(pattern, path string) bool {
	ps, ss := strings.Split(pattern, "/"), strings.Split(path, "/")
	for i, p := range ps {
		if p == "*" && i == len(ps)-1 {
			return len(ss) > i
		}
		if i >= len(ss) || p != ss[i] && (p != "*" || ss[i] == "") {
			return false
		}
	}
	return len(ps) == len(ss)
}
