package egress

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"gondolin/internal/audit"
	"gondolin/policy"
)

// TestRefusalsForPrograms has what an agent can act on without reading prose.
func TestRefusalsForPrograms(t *testing.T) {
	w := newWorld(t, policy.Network{
		Rules: []policy.Rule{{Name: `the "API"`, Host: "api.test", Methods: []string{"GET"}, Paths: []string{"/x"}}, {Host: "other.test", Deny: "é retired"}},
	}, hello)
	for _, tt := range []struct {
		method, url string
		want        problem
		header      string
		needs       bool
	}{
		{"POST", "https://api.test/x", problem{Code: policy.CodeMethod, Rule: `the "API"`}, `method;rule="the \"API\""`, true},
		{"GET", "https://api.test/y", problem{Code: policy.CodePath, Rule: `the "API"`}, `path;rule="the \"API\""`, true},
		{"GET", "https://none.test:443/", problem{Code: policy.CodeNoRule, Fix: "allow it with --allow-host none.test"}, "no_rule", true},
		{"GET", "http://other.test/", problem{Code: policy.CodeDenied, Rule: "deny other.test"}, `denied;rule="deny other.test"`, false},
	} {
		resp, body := w.do(tt.method, tt.url, func(r *http.Request) { r.Header.Set("Accept", "application/json, */*") })
		var got problem
		if err := json.Unmarshal([]byte(body), &got); err != nil || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %q, %v, %v", tt.url, body, resp.Header, err)
		}
		if got.Code != tt.want.Code || got.Rule != tt.want.Rule || got.Status != 403 || got.Detail == "" || tt.want.Fix != "" && got.Fix != tt.want.Fix {
			t.Errorf("%s: %+v", tt.url, got)
		}
		if resp.Header.Get("Gondolin-Denied") != tt.header {
			t.Errorf("%s: header %q", tt.url, resp.Header.Get("Gondolin-Denied"))
		}
		if tt.needs != (got.Needs != nil) || tt.needs && !policyAllows(t, got.Needs, tt.method, tt.url) {
			t.Errorf("%s: needs %+v", tt.url, got.Needs)
		}
		w.waitEvent(func(e audit.Event) bool {
			return e.Decision == audit.Deny && e.Code == string(tt.want.Code) && e.Rule == tt.want.Rule
		})
	}
	resp, body := w.do("POST", "https://api.test/x", func(r *http.Request) { r.Header.Set("Accept", "*/*, application/json") })
	if !strings.HasPrefix(body, "gondolin: denied: POST https://api.test:443/x: ") || resp.Header.Get("Gondolin-Denied") == "" {
		t.Errorf("%q", body)
	}
}

// policyAllows reports whether the rule that a refusal asks for would have helped.
func policyAllows(t *testing.T, n *needs, method, url string) bool {
	t.Helper()
	e, err := policy.Compile(policy.Network{Rules: []policy.Rule{{Host: n.Host, Ports: n.Ports, Schemes: n.Schemes, Methods: n.Methods, Paths: n.Paths}}})
	if err != nil {
		t.Error(err)
		return false
	}
	r, _ := http.NewRequestWithContext(t.Context(), method, url, nil)
	return e.Allows(policy.Request{Scheme: r.URL.Scheme, Host: r.URL.Hostname(), Port: 443, Method: method, Path: r.URL.Path})
}

// TestBodiesAreBounded sends and asks for bodies at and over the bounds of a rule,
// with and without a length.
func TestBodiesAreBounded(t *testing.T) {
	const bound = 100_000
	w := newWorld(t, policy.Network{Rules: []policy.Rule{{Host: "api.test", MaxRequest: bound, MaxResponse: bound}}}, func(rw http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		n, _ := strconv.Atoi(r.URL.Query().Get("n"))
		if r.URL.Query().Get("length") != "" {
			rw.Header().Set("Content-Length", strconv.Itoa(n))
		}
		_, _ = rw.Write(make([]byte, n))
	})
	type body struct{ io.Reader }
	for _, size := range []int{bound, bound + 1} {
		for _, chunked := range []bool{false, true} {
			resp, text := w.do("POST", "https://api.test/up", func(r *http.Request) {
				var from io.Reader = bytes.NewReader(make([]byte, size))
				r.ContentLength = int64(size)
				if chunked {
					from, r.ContentLength = body{from}, -1
				}
				r.Body = io.NopCloser(from)
			})
			want := 200
			if size > bound {
				want = 413
			}
			if resp.StatusCode != want || want == 413 && !strings.Contains(text, "longer than the 100000 bytes") {
				t.Errorf("sending %d, chunked %v: %d %q", size, chunked, resp.StatusCode, text)
			}
		}
		for _, query := range []string{"", "&length=1"} {
			r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://api.test/down?n="+strconv.Itoa(size)+query, nil)
			resp, err := w.client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			switch {
			case size == bound && (err != nil || len(got) != bound):
				t.Errorf("receiving %d%s: %d bytes, %v", size, query, len(got), err)
			case size > bound && query != "" && resp.StatusCode != 403:
				t.Errorf("receiving %d%s: %d", size, query, resp.StatusCode)
			case size > bound && query == "" && (err == nil || len(got) > bound):
				t.Errorf("receiving %d: %d bytes, %v: the guest may take it for the whole", size, len(got), err)
			}
		}
	}
	w.waitEvent(func(e audit.Event) bool {
		return e.Code == "request_size" && e.Decision == audit.Deny && e.Path == "/up"
	})
	w.waitEvent(func(e audit.Event) bool {
		return e.Code == "response_size" && e.Decision == audit.Deny && e.Path == "/down" && e.Received == bound
	})
}
