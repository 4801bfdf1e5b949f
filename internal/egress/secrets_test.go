package egress

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"gondolin/internal/audit"
	"gondolin/policy"
)

// echoHeaders answers with the Authorization and X-Key headers it got, in the
// body and in headers.
func echoHeaders(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Echo", r.Header.Get("Authorization"))
	w.Header().Set("Link", "</"+r.Header.Get("X-Key")+">")
	w.WriteHeader(http.StatusEarlyHints)
	w.Header().Del("Link")
	w.Header().Set("Trailer", "X-Tail")
	_, _ = fmt.Fprintf(w, "auth=%s key=%s accept=%s", r.Header.Get("Authorization"), r.Header.Get("X-Key"), r.Header.Get("Accept-Encoding"))
	w.Header().Set("X-Tail", r.Header.Get("X-Key"))
}

func TestSecretsGoToTheirHostOnly(t *testing.T) {
	var mu sync.Mutex
	var got []http.Header
	w := newWorld(t, tokenNetwork(), func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		got = append(got, r.Header.Clone())
		mu.Unlock()
		echoHeaders(rw, r)
	})
	placeholder := w.gateway.Env()["TOKEN"]
	basic := func(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	tests := []struct{ name, sent, want string }{
		{"Authorization", "Bearer " + placeholder, "Bearer " + secretValue},
		{"Authorization", basic("user:" + placeholder), basic("user:" + secretValue)},
		{"X-Key", "a" + placeholder + "b" + placeholder + "c", "a" + secretValue + "b" + secretValue + "c"},
		{"Authorization", "Basic %%%" + placeholder, "Basic %%%" + secretValue},
		{"X-Key", "nothing", "nothing"},
	}
	for i, tt := range tests {
		resp, body := w.do("GET", []string{"https://api.test/", "https://api.test:8443/"}[i%2], set(tt.name, tt.sent))
		if resp.StatusCode != 200 {
			t.Fatalf("%s: %d %q", tt.sent, resp.StatusCode, body)
		}
		mu.Lock()
		if value := got[len(got)-1].Get(tt.name); value != tt.want {
			t.Errorf("the server got %q, want %q", value, tt.want)
		}
		mu.Unlock()
		for _, v := range append(slices.Concat(slices.Collect(mapsValues(resp.Header))...), body, resp.Trailer.Get("X-Tail")) {
			if strings.Contains(v, secretValue) || strings.Contains(v, base64.StdEncoding.EncodeToString([]byte("user:"+secretValue))) {
				t.Errorf("the guest got %q", v)
			}
		}
		if strings.Contains(tt.sent, "Bearer") && (resp.Header.Get("X-Echo") != tt.sent || !strings.Contains(body, "Bearer "+strings.Repeat("*", len(secretValue)))) {
			t.Errorf("echo: %q, %q", resp.Header.Get("X-Echo"), body)
		}
	}
	e := w.waitEvent(func(e audit.Event) bool { return len(e.Secrets) > 0 })
	if e.Secrets[0] != "TOKEN" || e.Decision != audit.Allow {
		t.Errorf("event = %+v", e)
	}
	served := len(w.seen())
	refused := map[string]func(*http.Request){
		"https://other.test/1":                         set("Authorization", "Bearer "+placeholder),
		"https://other.test/2":                         set("Authorization", basic("u:"+placeholder)),
		"https://other.test/3":                         set("Cookie", "s="+secretValue),
		"https://other.test/4":                         set("Authorization", basic(secretValue+":")),
		"http://api.test/5":                            set("Authorization", "Bearer "+placeholder),
		"https://other.test/6?t=" + placeholder:        nil,
		"https://other.test/7/" + placeholder:          nil,
		"https://other.test/8?t=%47" + placeholder[1:]: nil,
		"https://other.test/9?t=" + secretValue:        nil,
		"https://other.test/10":                        set(placeholder, "x"),
		"https://other.test/11":                        set("X-Forwarded-For", placeholder),
	}
	for url, edit := range refused {
		resp, body := w.do("GET", url, edit)
		if resp.StatusCode != 403 || !strings.Contains(body, "secret TOKEN") || strings.Contains(body, secretValue) && !strings.Contains(url, secretValue) {
			t.Errorf("%s: %d %q", url, resp.StatusCode, body)
		}
	}
	if now := w.seen(); len(now) != served {
		t.Errorf("a server saw %q", now[served:])
	}
	w.waitEvent(func(e audit.Event) bool {
		return e.Path == "/1" && e.Decision == audit.Deny && strings.Contains(e.Reason, "not bound")
	})
	w.waitEvent(func(e audit.Event) bool {
		return e.Path == "/5" && e.Decision == audit.Deny && strings.Contains(e.Reason, "only over https")
	})
}

func mapsValues(h http.Header) func(func([]string) bool) {
	return func(yield func([]string) bool) {
		for _, v := range h {
			if !yield(v) {
				return
			}
		}
	}
}

func TestSecretRequestsAskForPlainAnswers(t *testing.T) {
	w := newWorld(t, tokenNetwork(), echoHeaders)
	gzip := func(r *http.Request) { r.Header.Set("Accept-Encoding", "gzip") }
	if _, body := w.do("GET", "https://api.test/", gzip); !strings.Contains(body, "accept=gzip") {
		t.Errorf("without a secret: %q", body)
	}
	if _, body := w.do("GET", "https://api.test/", func(r *http.Request) {
		gzip(r)
		r.Header.Set("X-Key", w.gateway.Env()["TOKEN"])
	}); !strings.Contains(body, "accept=identity") {
		t.Errorf("with a secret: %q", body)
	}
}

func TestInjectDoesNotSearchAgain(t *testing.T) {
	engine, err := policy.Compile(policy.Network{
		Allow: []policy.Rule{{Host: "a.test"}},
		Secrets: map[string]policy.Secret{
			"ONE": {Hosts: []string{"a.test"}, Value: "value-one"}, "TWO": {Hosts: []string{"a.test"}, Value: "value-two"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	v, err := newVault(engine, nil)
	if err != nil {
		t.Fatal(err)
	}
	two := v.env["TWO"]
	v.entries[0].value = func() string { return "[" + two + "]" } // a value that is itself a placeholder
	r, _ := http.NewRequestWithContext(t.Context(), "GET", "https://a.test/", nil)
	r.Header.Set("X", v.env["ONE"]+" "+two)
	done, d := v.inject(r, policy.Request{Scheme: "https", Host: "a.test", Port: 443})
	if d != nil || r.Header.Get("X") != "["+two+"] value-two" || !slices.Equal(done.used, []string{"ONE", "TWO"}) {
		t.Errorf("%q %v %v", r.Header.Get("X"), done.used, d)
	}
}

func TestScrubBody(t *testing.T) {
	values := []string{"secret-one", "another1", "aaab"}
	text := "x secret-one secret-on another1another1 aaaab secret-secret-one aaa"
	want := "x ********** secret-on **************** a**** secret-********** aaa"
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "halves": iotest.HalfReader, "data with error": iotest.DataErrReader,
	} {
		ended := 0
		b := newScrubBody(io.NopCloser(wrap(strings.NewReader(text))), values, func() { ended++ })
		got, err := io.ReadAll(b)
		if err != nil || string(got) != want || ended != 1 {
			t.Errorf("%s: %q, %v, ended %d times", name, got, err, ended)
		}
	}
	broken := newScrubBody(io.NopCloser(io.MultiReader(strings.NewReader("abc secret-o"), iotest.ErrReader(errors.New("cut")))), values, func() {})
	if got, err := io.ReadAll(broken); string(got) != "abc secret-o" || err == nil {
		t.Errorf("%q, %v", got, err)
	}
}

func FuzzScrubBody(f *testing.F) {
	f.Add([]byte("x secret-one y"), uint8(3))
	f.Add([]byte("aaaaaab"), uint8(1))
	f.Fuzz(func(t *testing.T, text []byte, step uint8) {
		values := []string{"secret-one", "aaab"}
		src := io.NopCloser(&stepReader{text, int(step%7) + 1})
		got, err := io.ReadAll(newScrubBody(src, values, func() {}))
		if err != nil || len(got) != len(text) {
			t.Fatalf("%d bytes became %d: %v", len(text), len(got), err)
		}
		for _, v := range values {
			if bytes.Contains(got, []byte(v)) {
				t.Fatalf("%q is in %q", v, got)
			}
		}
	})
}

type stepReader struct {
	b    []byte
	step int
}

func (r *stepReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.step)], r.b)
	r.b = r.b[n:]
	return n, nil
}
