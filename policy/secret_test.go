package policy_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"gondolin/policy"
)

const value = "hunter2-hunter2"

func secretNetwork() policy.Network {
	return policy.Network{
		Allow:   []policy.Rule{{Host: "api.test", Ports: []int{443, 8443}}, {Host: "*.wide.test"}, {Host: "other.test"}},
		Secrets: map[string]policy.Secret{"TOKEN": {Hosts: []string{"api.test", "api.test:8443", "a.wide.test"}, Value: value}},
	}
}

// TestSecretsDoNotPrint prints every type of the package that holds a secret.
func TestSecretsDoNotPrint(t *testing.T) {
	n := secretNetwork()
	e := compile(t, n)
	s := n.Secrets["TOKEN"]
	type nested struct {
		In  any
		Ptr *policy.Secret
		raw *policy.Engine
	}
	for _, v := range []any{s, &s, n, &n, e, *e, n.Secrets, []policy.Secret{s}, nested{s, &s, e}, &nested{n, &s, e}} {
		var out bytes.Buffer
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
			fmt.Fprintf(&out, format, v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
		_ = gob.NewEncoder(&out).Encode(v)
		for _, leak := range []string{value, fmt.Sprintf("%x", value), fmt.Sprintf("%X", value)} {
			if strings.Contains(out.String(), leak) {
				t.Errorf("%T prints its value: %s", v, out.String())
			}
		}
	}
}

func TestSecretScope(t *testing.T) {
	e := compile(t, secretNetwork())
	tests := []struct {
		scheme, host string
		port         int
		want         bool
	}{
		{"https", "api.test", 443, true},
		{"https", "api.test", 8443, true},
		{"https", "a.wide.test", 443, true},
		{"http", "api.test", 443, false},
		{"http", "api.test", 80, false},
		{"https", "api.test", 80, false},
		{"https", "b.wide.test", 443, false},
		{"https", "other.test", 443, false},
		{"https", "a.wide.test", 8443, false},
	}
	for _, tt := range tests {
		d := e.Secret("TOKEN", policy.Request{Scheme: tt.scheme, Host: tt.host, Port: tt.port})
		if d.Allowed != tt.want || !tt.want && d.Reason == "" {
			t.Errorf("%+v: %+v", tt, d)
		}
	}
	if d := e.Secret("NONE", policy.Request{Scheme: "https", Host: "api.test", Port: 443}); d.Allowed {
		t.Error("an unknown secret is allowed")
	}
}

func TestSecretErrors(t *testing.T) {
	allow := []policy.Rule{{Host: "api.test"}, {Host: "*.wide.test"}}
	bind := []string{"api.test"}
	for name, secrets := range map[string]map[string]policy.Secret{
		"empty value": {"A": {Hosts: bind}},
		"short":       {"A": {Hosts: bind, Value: "short"}},
		"CR":          {"A": {Hosts: bind, Value: "aaaaaaaa\rb"}},
		"LF":          {"A": {Hosts: bind, Value: "aaaaaaaa\n"}},
		"NUL":         {"A": {Hosts: bind, Value: "aaaaaaaa\x00"}},
		"name":        {"A-B": {Hosts: bind, Value: value}},
		"digit":       {"1A": {Hosts: bind, Value: value}},
		"no name":     {"": {Hosts: bind, Value: value}},
		"no hosts":    {"A": {Value: value}},
		"any host":    {"A": {Hosts: []string{"*"}, Value: value}},
		"bad host":    {"A": {Hosts: []string{"https://api.test"}, Value: value}},
		"not allowed": {"A": {Hosts: []string{"evil.test"}, Value: value}},
		"other port":  {"A": {Hosts: []string{"api.test:8443"}, Value: value}},
		"apex":        {"A": {Hosts: []string{"wide.test"}, Value: value}},
		"nested":      {"A": {Hosts: bind, Value: value}, "B": {Hosts: bind, Value: "x" + value}},
	} {
		_, err := policy.Compile(policy.Network{Allow: allow, Secrets: secrets})
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), value) {
			t.Errorf("%s: the error shows the value: %v", name, err)
		}
	}
	ok := policy.Network{Allow: allow, Secrets: map[string]policy.Secret{"A": {Hosts: []string{"*.wide.test"}, Value: value}}}
	if _, err := policy.Compile(ok); err != nil {
		t.Error(err)
	}
}
