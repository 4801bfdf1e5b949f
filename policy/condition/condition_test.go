package condition_test

import (
	"strings"
	"testing"

	"gondolin/policy"
	"gondolin/policy/condition"
)

var request = policy.Request{Scheme: "https", Host: "api.test", Port: 443, Method: "GET", Path: "/repos/a/b", Query: "page=2"}

func TestHolds(t *testing.T) {
	for text, want := range map[string]bool{
		`true`: true,
		`scheme == "https" && host == "api.test" && port == 443 && method == "GET" && path == "/repos/a/b" && query == "page=2"`: true,
		`method == "POST"`: false,
		`path.startsWith("/repos/") && path.split("/").size() == 4`: true,
		`query.matches("^page=[0-9]+$")`:                            true,
		`["GET", "HEAD"].exists(m, m == method)`:                    true,
		`path.split("/")[2] in ["x", "y"]`:                          false,
	} {
		c, err := condition.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := c.Holds(request); err != nil || got != want || c.String() != text {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		``:                                      "cannot use condition",
		`method`:                                "yields string, not true or false",
		`method == `:                            "1:11",
		`port == "443"`:                         "no matching overload",
		`nosuch == 1`:                           "undeclared reference",
		`path.matches("(")`:                     "invalid matches argument",
		`1 / 0`:                                 "not true or false",
		strings.Repeat("!", 200):                "cannot use condition",
		strings.Repeat("true||", 1000) + "true": "the limit is 4096",
		`[1].all(a, [1].all(b, [1].all(c, [1].all(d, a == d))))`: "nesting",
		"\x00": "cannot use condition",
	} {
		if _, err := condition.Parse(text); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "cannot ") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestErrorsCountAgainstTheRequest has conditions that cannot be evaluated in a rule
// that allows and one that refuses.
func TestErrorsCountAgainstTheRequest(t *testing.T) {
	for _, text := range []string{
		`path.split("/")[9] == "x"`,
		`port / (port - 443) == 1`,
		`path.split("/").all(a, path.split("/").all(b, a + b != query))`, // over the cost
	} {
		c, err := condition.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		q := request
		if strings.Contains(text, "all") {
			q.Path = "/" + strings.Repeat("a/", 2000)
		}
		if holds, err := c.Holds(q); err == nil || holds {
			t.Errorf("%s: %v, %v", text, holds, err)
		}
		allow, err := policy.Compile(policy.Network{Allow: []policy.Rule{{Host: "api.test", When: c}}})
		if err != nil {
			t.Fatal(err)
		}
		if d := allow.Request(q); d.Allowed || d.Code != policy.CodeCondition {
			t.Errorf("%s: %+v", text, d)
		}
		deny, err := policy.Compile(policy.Network{Rules: []policy.Rule{{Host: "api.test", When: c, Deny: "no"}}, Allow: []policy.Rule{{Host: "api.test"}}})
		if err != nil {
			t.Fatal(err)
		}
		if d := deny.Request(q); d.Allowed || d.Code != policy.CodeDenied {
			t.Errorf("%s: %+v", text, d)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`method == "GET"`, `path.split("/").all(p, p != "..")`, `1/0 == 1`, `"a".matches(path)`} {
		f.Add(s, "/a/b")
	}
	f.Fuzz(func(t *testing.T, text, path string) {
		c, err := condition.Parse(text)
		if err != nil {
			return
		}
		q := request
		q.Path = path
		one, err1 := c.Holds(q)
		two, err2 := c.Holds(q)
		if one != two || (err1 == nil) != (err2 == nil) {
			t.Fatalf("%q decides %v, %v and then %v, %v", text, one, err1, two, err2)
		}
	})
}
