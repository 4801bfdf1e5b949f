package policyfile_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gondolin/policy"
	"gondolin/policyfile"
)

const whole = `# everything there is
version: 1
name: agents
image: debian
limits: {memory: 2G, cpus: 4, timeout: 10m}
network:
  rules:
    - host: api.test
      paths: [/admin/*]
      deny: for people
    - name: api
      host: "*.test"
      ports: [443, 8443]
      schemes: [https]
      methods: [GET, POST]
      paths: [/v1/*]
      when: query == ""
      max_request: 1M
      max_response: 10M
  internal: [10.0.0.0/8]
secrets:
  TOKEN: {hosts: [a.test], env: HOST_TOKEN}
  OTHER: {hosts: ["b.test:8443"], file: other.txt}
`

func write(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestWhole(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "other.txt"), "other-secret\n")
	p, err := policyfile.Load(write(t, filepath.Join(dir, "p.yaml"), whole))
	if err != nil {
		t.Fatal(err)
	}
	if p.Image != "debian" || p.Limits != (policyfile.Limits{Memory: 2 << 30, CPUs: 4, Timeout: 600e9}) {
		t.Errorf("%+v", p)
	}
	n, err := p.Resolve(func(name string) (string, bool) { return "token-of-host", name == "HOST_TOKEN" })
	if err != nil || n.Secrets["TOKEN"].Value != "token-of-host" || n.Secrets["OTHER"].Value != "other-secret" {
		t.Fatal(err)
	}
	e, err := policy.Compile(n)
	if err != nil {
		t.Fatal(err)
	}
	d := e.Request(policy.Request{Scheme: "https", Host: "api.test", Port: 443, Method: "GET", Path: "/v1/x"})
	if !d.Allowed || d.Rule != "api" || d.MaxRequest != 1<<20 || d.MaxResponse != 10<<20 {
		t.Errorf("%+v", d)
	}
	if d := e.Request(policy.Request{Scheme: "https", Host: "api.test", Port: 443, Method: "GET", Path: "/admin/x"}); d.Code != policy.CodeDenied {
		t.Errorf("%+v", d)
	}
	if _, err := p.Resolve(func(string) (string, bool) { return "", false }); err == nil || !strings.Contains(err.Error(), "HOST_TOKEN is not set") {
		t.Error(err)
	}
}

// TestFaultsSayWhere has one fault a text, and where it must be said to be.
func TestFaultsSayWhere(t *testing.T) {
	rules := "version: 1\nnetwork:\n  rules:\n"
	for text, want := range map[string]string{
		"":                                                            `p.yaml:1:1: it is empty`,
		"version: 2":                                                  `p.yaml:1:10: version must be a number from 1 to 1`,
		"image: x":                                                    `p.yaml:1:1: it does not say its version`,
		"version: 1\nnetworks: {}":                                    `p.yaml:2:1: a policy has no field "networks"; it may have version, name,`,
		"version: 1\nimage: a\nimage: b":                              `p.yaml:3:1: a policy has "image" twice`,
		"version: 1\n---\nversion: 1":                                 `it has a second document`,
		"version: 1\n  x: [":                                          `p.yaml:2:1: it is not YAML`,
		"version: 1\nname: &a x":                                      `p.yaml:2:7: anchors`,
		"version: 1\nname: !x y":                                      `p.yaml:2:7: tags`,
		"version: 1\nlimits: {cpus: 0}":                               `p.yaml:2:16: cpus must be a number from 1`,
		"version: 1\nlimits: {memory: lots}":                          `p.yaml:2:18: memory: "lots" is no size`,
		"version: 1\nlimits: {timeout: 5}":                            `p.yaml:2:19: timeout must be a time`,
		rules + "    - hst: a.test":                                   `p.yaml:4:7: a rule has no field "hst"`,
		rules + "    - methods: [GET]":                                `p.yaml:4:7: a rule needs a host`,
		rules + "    - host: https://a.test":                          `p.yaml:4:7: cannot use host pattern`,
		rules + "    - {host: a.test, ports: [0]}":                    `p.yaml:4:30: each of ports must be a number`,
		rules + "    - {host: a.test, methods: [get]}":                `p.yaml:4:7: cannot use rule "a.test"`,
		rules + "    - {host: a.test, methods: []}":                   `p.yaml:4:31: methods is empty`,
		rules + "    - {host: a.test, paths: [/a*]}":                  `p.yaml:4:7: cannot use rule`,
		rules + "    - {host: a.test, when: nosuch}":                  `p.yaml:4:28: cannot use condition`,
		rules + "    - host: \"*.test\"\n    - host: a.test":          `p.yaml:5:7: it never decides: rule 1,`,
		rules + "    - host: 10.0.0.1":                                `p.yaml:4:7: it allows nothing: 10.0.0.1 is internal`,
		"version: 1\nnetwork: {internal: [\"*\"]}":                    `p.yaml:2:22: cannot allow internal host`,
		"version: 1\nsecrets: {A: {hosts: [a.test]}}":                 `p.yaml:2:14: a secret is from one place`,
		"version: 1\nsecrets: {A: {hosts: [a.test], value: hunter2}}": `p.yaml:2:32: a secret has no field "value"`,
		"version: 1\nsecrets: {A: {hosts: [a.test], env: A}}":         `p.yaml:2:11: cannot bind secret A to a.test:443: no rule allows`,
		strings.Repeat("[", 50) + strings.Repeat("]", 50):             `p.yaml:1:1: it is nested`,
	} {
		_, err := policyfile.Load(write(t, filepath.Join(t.TempDir(), "p.yaml"), text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// TestFilesOnlyNarrow has a repository's file try to widen an organisation's.
func TestFilesOnlyNarrow(t *testing.T) {
	dir := t.TempDir()
	floor := write(t, filepath.Join(dir, "floor.yaml"), `{version: 1, limits: {cpus: 2, memory: 1G}, secrets: {T: {hosts: [a.test], env: T}},
		network: {rules: [{host: "*.test"}], internal: [10.0.0.0/8]}}`)
	own := func(text string) (*policyfile.Policy, error) {
		return policyfile.Load(floor, write(t, filepath.Join(dir, "own.yaml"), text))
	}
	p, err := own(`{version: 1, limits: {cpus: 8, memory: 512M}, network: {rules: [{host: a.test}, {host: b.example}], internal: [10.1.0.0/16, 192.168.0.0/16]}}`)
	if err != nil {
		t.Fatal(err)
	}
	if p.Limits.CPUs != 2 || p.Limits.Memory != 512<<20 {
		t.Errorf("%+v", p.Limits)
	}
	e, err := policy.Compile(p.Network)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{"a.test": true, "b.test": false, "b.example": false} {
		if d := e.Request(policy.Request{Scheme: "https", Host: host, Port: 443, Method: "GET", Path: "/"}); d.Allowed != want || !want && d.Policy == "" {
			t.Errorf("%s: %+v", host, d)
		}
	}
	if p, err := own("version: 1"); err != nil || len(p.Network.Rules) != 1 { // says nothing of the network
		t.Errorf("%v", err)
	}
	for text, want := range map[string]string{
		`{version: 1, secrets: {U: {hosts: [a.test], env: U}}}`:    "own.yaml:1:23: only the first file may have secrets",
		`{version: 1, network: {rules: [{host: b.test}]}}`:         "floor.yaml:1:55: cannot bind secret T",
		"version: 1\nnetwork: {rules: [{host: a.test, prots: 1}]}": "own.yaml:2:",
	} {
		if _, err := own(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := os.Chmod(floor, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := policyfile.Load(floor); err == nil || !strings.Contains(err.Error(), "chmod o-w") {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{whole, "version: 1", "version: 1\nnetwork: {rules: [{host: a.test}]}", "a: &a [*a]", "? [x]\n: y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		file, err := policyfile.Parse("p.yaml", []byte(text))
		if err != nil {
			return
		}
		p, err := policyfile.Combine(file)
		if err != nil {
			return
		}
		if _, err := policy.Compile(p.Network); err != nil {
			t.Fatalf("accepted, and cannot be used: %v", err)
		}
		_ = fmt.Sprint(p)
	})
}
