package gondolin_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"gondolin"
	"gondolin/internal/vmtest"
	"gondolin/policy"
)

// token is a secret no guest may ever see.
const token = "real-t0ken-5f2c9ab1d84e"

// syncBuffer collects what several goroutines write.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// One VM with one policy serves all of these.
func TestNetwork(t *testing.T) {
	hold := make(chan struct{})
	api := vmtest.NewAPI(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hold":
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-hold
		case "/sum":
			sum := sha256.New()
			_, err := io.Copy(sum, r.Body)
			fmt.Fprintf(w, "%x %v\n", sum.Sum(nil), err)
		case "/big":
			_, _ = io.CopyN(w, zeros{}, 20<<20)
		default:
			fmt.Fprintf(w, "hello %s\n", r.URL.Path)
		}
	}), "api.test", "other.test", "rebound.test")
	var audit syncBuffer
	vm := vmtest.Start(t, gondolin.Config{
		Network: policy.Network{
			Allow:         []policy.Rule{{Host: "api.test"}, {Host: "other.test"}, {Host: "rebound.test"}, {Host: "nowhere.test"}},
			AllowInternal: []string{"api.test", "other.test"},
			Secrets:       map[string]policy.Secret{"API_TOKEN": {Hosts: []string{"api.test"}, Value: token}},
		},
		Upstream: api.Upstream(),
		Audit:    &audit,
	})
	n := &networkTest{vm: vm, api: api, hold: hold}
	t.Run("secret", n.secret)
	t.Run("secret in basic auth", n.basic)
	t.Run("secret stays out of the guest", n.memory)
	t.Run("secret elsewhere", n.elsewhere)
	t.Run("denied", n.denied)
	t.Run("tools trust the CA", n.tools)
	t.Run("bodies", n.bodies)
	t.Run("not HTTP", n.otherProtocols)
	t.Run("audit", func(t *testing.T) { checkAudit(t, audit.String()) })
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

type networkTest struct {
	vm   *gondolin.VM
	api  *vmtest.API
	hold chan struct{}
}

// last returns the newest request the server saw.
func (n *networkTest) last(t *testing.T) *http.Request {
	t.Helper()
	list := n.api.Requests()
	if len(list) == 0 {
		t.Fatal("the server saw no request")
	}
	return list[len(list)-1]
}

func (n *networkTest) secret(t *testing.T) {
	out := vmtest.Output(t, n.vm, `curl -sS -H "Authorization: Bearer $API_TOKEN" https://api.test/user; echo $API_TOKEN`)
	if !strings.HasPrefix(out, "hello /user\nGONDOLIN_SECRET_") || strings.Contains(out, token) {
		t.Errorf("the guest saw %q", out)
	}
	if got := n.last(t).Header.Get("Authorization"); got != "Bearer "+token {
		t.Errorf("the server saw %q", got)
	}
}

func (n *networkTest) basic(t *testing.T) {
	vmtest.Output(t, n.vm, `curl -sS -u "me:$API_TOKEN" https://api.test/`)
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+token))
	if got := n.last(t).Header.Get("Authorization"); got != want {
		t.Errorf("the server saw %q", got)
	}
}

// searchScript looks for a text, given reversed so that the script itself
// does not hold it, in the memory of a process and in every file the guest could
// have written. It prints what it found, the placeholder being what must be.
const searchScript = `
import os, subprocess, sys, time
secret = sys.argv[1].encode()
curl = subprocess.Popen(["curl", "-sSN", "-H", "Authorization: Bearer " + os.environ["API_TOKEN"], "https://api.test/hold"],
                        stdout=subprocess.PIPE)
while b"hold" not in open("/proc/%d/cmdline" % curl.pid, "rb").read():
    time.sleep(0.01)
sys.stdin.readline()  # the host says that the server has the request
def memory(pid):
    with open("/proc/%d/maps" % pid) as maps, open("/proc/%d/mem" % pid, "rb", 0) as mem:
        for line in maps:
            span, perms = line.split()[:2]
            if "w" not in perms:
                continue
            a, b = (int(x, 16) for x in span.split("-"))
            try:
                mem.seek(a)
                yield mem.read(b - a)
            except (OSError, ValueError):
                pass
found = b"".join(memory(curl.pid))
print("placeholder in memory:", b"GONDOLIN_SECRET_" in found)
print("secret in memory:", secret[::-1] in found)
curl.kill()
hits = 0
for top in ("/etc", "/root", "/tmp", "/run", "/var", "/home"):
    for dir, _, files in os.walk(top):
        for f in files:
            try:
                with open(os.path.join(dir, f), "rb") as h:
                    hits += secret[::-1] in h.read(1 << 24)
            except OSError:
                pass
print("files with the secret:", hits)
print("secret in environments:", any(secret[::-1] in open("/proc/%s/environ" % p, "rb").read() for p in os.listdir("/proc") if p.isdigit()))
`

func (n *networkTest) memory(t *testing.T) {
	reversed := []byte(token)
	slices.Reverse(reversed)
	before := len(n.api.Requests())
	c := n.vm.Command(t.Context(), "python3", "-c", searchScript, string(reversed))
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for len(n.api.Requests()) == before && t.Context().Err() == nil {
			runtime.Gosched()
		}
		fmt.Fprintln(in, "go")
		in.Close()
	}()
	out, err := c.Output()
	close(n.hold)
	want := "placeholder in memory: True\nsecret in memory: False\nfiles with the secret: 0\nsecret in environments: False\n"
	if string(out) != want || err != nil {
		t.Errorf("%s%v", out, err)
	}
	if got := n.last(t).Header.Get("Authorization"); got != "Bearer "+token {
		t.Errorf("the server saw %q", got)
	}
}

func (n *networkTest) elsewhere(t *testing.T) {
	before := len(n.api.Requests())
	for _, args := range []string{
		`-H "Authorization: Bearer $API_TOKEN" https://other.test/`, // a host it is not for
		`-H "Authorization: Bearer $API_TOKEN" http://api.test/`,    // not encrypted
		`-u "me:$API_TOKEN" https://other.test/`,
		`"https://other.test/?token=$API_TOKEN"`,
	} {
		out := vmtest.Output(t, n.vm, `curl -sS -w '%{http_code}' `+args)
		if !strings.HasSuffix(out, "403") || !strings.Contains(out, "API_TOKEN") {
			t.Errorf("%s: %q", args, out)
		}
	}
	if got := len(n.api.Requests()); got != before {
		t.Errorf("%d requests reached a server", got-before)
	}
}

func (n *networkTest) denied(t *testing.T) {
	before := len(n.api.Requests())
	for url, reason := range map[string]string{
		"https://evil.test/x":                   "no rule allows host evil.test:443",
		"http://evil.test/":                     "no rule allows host evil.test:80",
		"http://1.2.3.4/":                       "no rule allows host 1.2.3.4:80",
		"https://1.2.3.4/":                      "no rule allows host 1.2.3.4:443",
		"http://169.254.169.254/latest":         "no rule allows host 169.254.169.254:80",
		"https://rebound.test/":                 "127.0.0.1", // allowed, but resolves to the host itself
		"-H 'Host: api.test' http://evil.test/": "",
		"-H 'Host: localhost' http://api.test/": "",
	} {
		out := vmtest.Output(t, n.vm, `curl -sS -m 20 -w '\n%{http_code}' `+url)
		if !strings.HasSuffix(out, "403") && !strings.HasSuffix(out, "421") || !strings.Contains(out, reason) || !strings.HasPrefix(out, "gondolin:") {
			t.Errorf("%s: %q", url, out)
		}
	}
	// A different name in the TLS handshake than in the request.
	out := vmtest.Output(t, n.vm, `curl -sS -m 20 -w '\n%{http_code}' -H 'Host: evil.test' https://api.test/`)
	if !strings.HasSuffix(out, "403") && !strings.HasSuffix(out, "421") {
		t.Errorf("Host that is not the TLS name: %q", out)
	}
	// The guest's own loopback stays its own, and the gateway serves nothing but DNS.
	for _, host := range []string{"localhost", "127.0.0.1", "192.168.127.1"} {
		out = vmtest.Output(t, n.vm, `curl -sS -m 5 http://`+host+`/ 2>&1; echo $?`)
		if !strings.HasSuffix(out, "\n7\n") {
			t.Errorf("%s: %q", host, out)
		}
	}
	if got := len(n.api.Requests()); got != before {
		t.Errorf("%d requests reached a server", got-before)
	}
}

func (n *networkTest) tools(t *testing.T) {
	for name, script := range map[string]string{
		"curl":         `curl -sS https://api.test/`,
		"python ssl":   `python3 -c 'import urllib.request as u; print(u.urlopen("https://api.test/").read().decode(), end="")'`,
		"openssl":      `printf 'GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n' | openssl s_client -quiet -verify_return_error -connect api.test:443 -servername api.test 2>/dev/null | tail -1`,
		"git":          `git ls-remote https://api.test/repo 2>&1 | grep -c "not a git repository\|not found\|invalid\|no such\|not valid" >/dev/null; GIT_CURL_VERBOSE=1 git ls-remote https://api.test/ 2>&1 | grep -q "HTTP/[12.]* 200" && echo hello /`,
		"bare curl":    `env -i curl -sS https://api.test/`,
		"bare python":  `env -i python3 -c 'import urllib.request as u; print(u.urlopen("https://api.test/").read().decode(), end="")'`,
		"bare openssl": `printf 'GET / HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n' | env -i openssl s_client -quiet -verify_return_error -connect api.test:443 -servername api.test 2>/dev/null | tail -1`,
		"another user": `setpriv --reuid 65534 --clear-groups --regid 65534 curl -sS https://api.test/`,
	} {
		if out := vmtest.Output(t, n.vm, script); out != "hello /\n" {
			t.Errorf("%s: %q", name, out)
		}
	}
}

func (n *networkTest) bodies(t *testing.T) {
	if out := vmtest.Output(t, n.vm, `curl -sS https://api.test/big | wc -c`); strings.TrimSpace(out) != fmt.Sprint(20<<20) {
		t.Errorf("a download of %q bytes", out)
	}
	out := vmtest.Output(t, n.vm, `head -c 10000000 /dev/urandom > /tmp/up; sha256sum < /tmp/up; curl -sS -T /tmp/up https://api.test/sum`)
	lines := strings.Fields(out)
	if len(lines) != 4 || lines[0] != lines[2] || lines[3] != "<nil>" {
		t.Errorf("an upload arrived different: %q", out)
	}
}

func (n *networkTest) otherProtocols(t *testing.T) {
	out := vmtest.Output(t, n.vm, `python3 - <<'E'
import socket, time
def tried(name, f):
    start = time.time()
    try:
        f()
        print(name, "worked")
    except OSError as e:
        print(name, "refused" if time.time() - start < 8 else "hung")
def tcp(port, data=b""):
    s = socket.create_connection(("api.test", port), timeout=10)
    s.sendall(data)
    if s.recv(100):
        return
    raise OSError("closed")
def udp(port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(10)
    s.connect(("api.test", port))
    s.send(b"x")
    s.recv(10)
tried("ssh port", lambda: tcp(22))
tried("garbage", lambda: tcp(443, b"\x00\x01garbage\r\n\r\n"))
tried("ssh on 443", lambda: tcp(443, b"SSH-2.0-x\r\n"))
tried("quic", lambda: udp(443))
E`)
	if want := "ssh port refused\ngarbage refused\nssh on 443 refused\nquic refused\n"; out != want {
		t.Errorf("%q", out)
	}
}

// event is what the test needs of an audit line.
type event struct {
	Kind, Decision, Rule, Reason, Name, Host, Path string
	Status                                         int
}

// The audit holds each of the above with its rule or reason, and never a secret.
func checkAudit(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(text, token) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte("me:"+token))) {
		t.Error("the audit holds the secret")
	}
	var events []event
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%s: %v", lines.Bytes(), err)
		}
		events = append(events, e)
	}
	for name, match := range map[string]func(event) bool{
		"DNS answer": func(e event) bool { return e.Kind == "dns" && e.Name == "api.test" },
		"allowed": func(e event) bool {
			return e.Kind == "request" && e.Decision == "allow" && e.Rule == "api.test" && e.Path == "/user"
		},
		"denied name": func(e event) bool { return e.Decision == "deny" && strings.Contains(e.Reason, "evil.test:443") },
		"raw address": func(e event) bool { return e.Decision == "deny" && strings.Contains(e.Reason, "1.2.3.4") },
		"metadata":    func(e event) bool { return e.Decision == "deny" && strings.Contains(e.Reason, "169.254.169.254") },
		"rebound": func(e event) bool {
			return e.Decision == "deny" && e.Host == "rebound.test" && strings.Contains(e.Reason, "127.0.0.1")
		},
		"secret": func(e event) bool {
			return e.Decision == "deny" && e.Host == "other.test" && strings.Contains(e.Reason, "API_TOKEN")
		},
		"port": func(e event) bool { return e.Kind == "connection" && e.Decision == "deny" },
	} {
		if !slices.ContainsFunc(events, match) {
			t.Errorf("no audit event for: %s", name)
		}
	}
	if t.Failed() {
		fmt.Fprintln(os.Stderr, text)
	}
}
