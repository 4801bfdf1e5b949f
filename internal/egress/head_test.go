package egress

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"gondolin/internal/audit"
)

// smuggled are heads that parsers have been known to read in more ways than one.
// want is a part of the reason.
var smuggled = []struct{ head, want string }{
	{"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding and Content-Length"},
	{"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", "Transfer-Encoding and Content-Length"},
	{"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", "Content-Length"},
	{"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", "Content-Length"},
	{"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 3, 3\r\n\r\n", "Content-Length"},
	{"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: +3\r\n\r\n", "Content-Length"},
	{"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: -3\r\n\r\n", "Content-Length"},
	{"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 0x3\r\n\r\n", "Content-Length"},
	{"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length:\r\n\r\n", "Content-Length"},
	{"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 9223372036854775807\r\n\r\n", "Content-Length"},
	{"POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 18446744073709551617\r\n\r\n", "Content-Length"},
	{"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "Transfer-Encoding other"},
	{"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked, identity\r\n\r\n", "Transfer-Encoding other"},
	{"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: identity\r\n\r\n", "Transfer-Encoding other"},
	{"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding:\r\n\r\n", "Transfer-Encoding other"},
	{"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", "Transfer-Encoding other"},
	{"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", "Transfer-Encoding other"},
	{"POST / HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", "control byte in a field value"},
	{"POST / HTTP/1.0\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0"},
	{"GET / HTTP/1.1\r\nHost: api.test\r\nX: a\r\n b\r\n\r\n", "starts with whitespace"},
	{"GET / HTTP/1.1\r\nHost: api.test\r\nX: a\r\n\tb\r\n\r\n", "starts with whitespace"},
	{"GET / HTTP/1.1\r\n Host: api.test\r\n\r\n", "starts with whitespace"},
	{"GET / HTTP/1.1\nHost: api.test\n\n", "LF without CR"},
	{"GET / HTTP/1.1\r\nHost: api.test\r\nX: a\nY: b\r\n\r\n", "LF without CR"},
	{"GET / HTTP/1.1\r\nHost: api.test\r\nX: a\rY: b\r\n\r\n", "CR without LF"},
	{"GET / HTTP/1.1\r\nHost: api.test\r\nX: a\r\r\n\r\n", "CR without LF"},
	{"GET / HTTP/1.1\r\nHost: api.test\r\nContent-Length : 3\r\n\r\n", "not a token"},
	{"GET / HTTP/1.1\r\nHost: api.test\r\nX\t: 3\r\n\r\n", "not a token"},
	{"GET / HTTP/1.1\r\nHost: api.test\r\n: 3\r\n\r\n", "not a token"},
	{"GET / HTTP/1.1\r\nHost: api.test\r\nnothing\r\n\r\n", "not a token"},
	{"GET / HTTP/1.1\r\nHost: api.test\r\nX: a\x00b\r\n\r\n", "control byte in a field value"},
	{"GET / HTTP/1.1\r\nHost: api.test\r\nX: a\x7fb\r\n\r\n", "control byte in a field value"},
	{"GET http://other.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n", "another host"},
	{"GET http://api.test:81/ HTTP/1.1\r\nHost: api.test\r\n\r\n", "another host"},
	{"GET http://u@api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n", "another host"},
	{"GET / HTTP/1.1\r\nHost: api.test\r\nHost: api.test\r\n\r\n", "more than one Host"},
	{"GET  / HTTP/1.1\r\nHost: api.test\r\n\r\n", "request line"},
	{"GET / x HTTP/1.1\r\nHost: api.test\r\n\r\n", "HTTP/1.1 or HTTP/1.0"},
	{"GET /\x01 HTTP/1.1\r\nHost: api.test\r\n\r\n", "target"},
	{"GET / HTTP/1.1 \r\nHost: api.test\r\n\r\n", "HTTP/1.1 or HTTP/1.0"},
	{"GET / HTTP/2.0\r\nHost: api.test\r\n\r\n", "HTTP/1.1 or HTTP/1.0"},
	{"GET /\r\n\r\n", "HTTP/1.1 or HTTP/1.0"},
	{"GET / HTTP/1.1\r\nHost: api.test\r\ngondolin-malformed: 400 x\r\n\r\n", "reserved"},
}

func TestCheckHead(t *testing.T) {
	for _, tt := range smuggled {
		if strings.Contains(tt.want, "LF") {
			continue // lineEnd's; TestSmuggling has them
		}
		_, err := checkHead([]byte(tt.head))
		if d := asDenial(err); d == nil || d.status != 400 || d.code != codeMalformed || !strings.Contains(d.reason, tt.want) {
			t.Errorf("%q: %v", tt.head, err)
		}
	}
	for head, want := range map[string]framing{
		"GET / HTTP/1.1\r\n\r\n":           {},
		"GET / HTTP/1.0\r\nHost:a\r\n\r\n": {},
		"get /\xc3\xa9?x=%zz HTTP/1.1\r\nHost: a\r\nX:\t \r\nY: \xe9\tz \r\n\r\n":                     {},
		"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 007 \r\n\r\n":                                  {length: 7},
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nUpgrade: websocket\r\n\r\n":      {chunked: true, upgrade: true},
		"GET http://A.test:80/b HTTP/1.1\r\nHost: a.test\r\n\r\n":                                     {},
		"GET /http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n":                                        {},
		"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n":                                     {},
		"OPTIONS * HTTP/1.1\r\nHost: a.test\r\nX-!#$%&'*+.^_`|~9: (\"quoted\\\"),;<=>?@[]{} \r\n\r\n": {},
	} {
		if got, err := checkHead([]byte(head)); err != nil || got != want {
			t.Errorf("%q: %+v, %v", head, got, err)
		}
	}
}

// TestSmuggling: the second request of a connection is refused and ends it, the
// first is answered, and what follows the refused one never arrives.
func TestSmuggling(t *testing.T) {
	w := newWorld(t, tokenNetwork(), hello)
	const tail = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n"
	for _, tt := range smuggled {
		before := len(w.events())
		got := w.raw("api.test:80", "POST /first HTTP/1.1\r\nHost: api.test\r\nContent-Length: 1\r\n\r\nx\r\n"+tt.head+tail)
		if strings.Count(got, "HTTP/1.1 200 ") != 1 || strings.Count(got, "HTTP/1.1 400 ") != 1 ||
			!strings.Contains(got, "Gondolin-Denied: malformed\r\n") || !strings.Contains(got, tt.want) {
			t.Errorf("%q: %q", tt.head, got)
		}
		w.waitEvent(func(e audit.Event) bool {
			return len(w.events()) > before && e.Kind == audit.Request && e.Decision == audit.Deny && e.Code == "malformed" && strings.Contains(e.Reason, tt.want)
		})
	}
	if hits := w.seen(); slices.ContainsFunc(hits, func(hit string) bool { return hit != "POST api.test /first" }) {
		t.Errorf("a server saw %q", hits)
	}
}

// TestMalformedChunks: a body whose end is not certain ends its connection.
func TestMalformedChunks(t *testing.T) {
	w := newWorld(t, tokenNetwork(), func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(rw, "hello")
	})
	for body, want := range map[string]string{
		"3\nabc\r\n0\r\n\r\n":            "LF without CR",
		"3\r\nabcd\r\n0\r\n\r\n":         "longer than its size",
		"3\r\nabc\n0\r\n\r\n":            "longer than its size",
		"0x3\r\nabc\r\n0\r\n\r\n":        "hexadecimal",
		"3 \r\nabc\r\n0\r\n\r\n":         "hexadecimal",
		"\r\nabc\r\n0\r\n\r\n":           "hexadecimal",
		"0000000000000003\r\nabc\r\n":    "hexadecimal",
		"3;a\x00\r\nabc\r\n0\r\n\r\n":    "chunk extension",
		"0\r\nX : y\r\n\r\n":             "not a token",
		"0\r\nX: y\r\n z\r\n\r\n":        "starts with whitespace",
		"3;" + strings.Repeat("a", 5000): "too long",
		"0\r\n" + strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 5) + "\r\n": "too long",
	} {
		got := w.raw("api.test:80", "POST /chunks HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n"+body+
			"GET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, want) || strings.Count(got, "HTTP/1.1 ") > 1 {
			t.Errorf("%.40q: %q", body, got)
		}
		w.waitEvent(func(e audit.Event) bool {
			return e.Kind == audit.Request && e.Decision == audit.Deny && e.Code == "malformed" && strings.Contains(e.Reason, want)
		})
	}
	if hits := w.seen(); slices.Contains(hits, "GET api.test /smuggled") {
		t.Errorf("a server saw %q", hits)
	}
}

// TestPipelining: many requests of every framing in one go are answered in turn.
func TestPipelining(t *testing.T) {
	w := newWorld(t, tokenNetwork(), func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(rw, r.URL.Path+"="+string(body)+r.Trailer.Get("X-Tail"))
	})
	got := w.raw("api.test:80", "GET /a HTTP/1.1\r\nHost: api.test\r\n\r\n"+
		"POST /b HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\n\r\nGET /"+
		"POST /c HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Tail\r\n\r\n3\r\nfoo\r\n4;x=y\r\n\r\n\r\n\r\n0\r\nX-Tail: tail\r\n\r\n"+
		"\r\nGET /d HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n")
	for _, want := range []string{"/a=", "/b=GET /", "/c=foo\r\n\r\ntail", "/d="} {
		before, after, ok := strings.Cut(got, want)
		if !ok || !strings.Contains(before, "HTTP/1.1 200 ") {
			t.Fatalf("no %q in %q", want, got)
		}
		got = after
	}
}

// TestUnswitchedUpgradeEnds: after a request to upgrade nothing is checked any
// more, so if the server does not switch, the connection is over.
func TestUnswitchedUpgradeEnds(t *testing.T) {
	w := newWorld(t, tokenNetwork(), hello)
	got := w.raw("api.test:80", "GET /up HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"+
		"GET /smuggled HTTP/1.1\r\nHost: api.test\r\n\r\n")
	if strings.Count(got, "HTTP/1.1 200 ") != 1 || !strings.Contains(got, "Connection: close\r\n") {
		t.Errorf("%q", got)
	}
	if hits := w.seen(); len(hits) != 1 {
		t.Errorf("a server saw %q", hits)
	}
}

// bytesConn is a connection of which only Read works.
type bytesConn struct {
	net.Conn
	io.Reader
}

func (c bytesConn) Read(p []byte) (int, error) { return c.Reader.Read(p) }

// FuzzHeadGuard: what passes is what came in, however it is cut up, until a
// refusal; and net/http understands each head that passed as framing has it.
func FuzzHeadGuard(f *testing.F) {
	for _, tt := range smuggled {
		f.Add([]byte(tt.head))
	}
	f.Add([]byte(http2Preface + "x"))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.0\r\n\r\n"))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\r\nGET / HTTP/1.1\r\nUpgrade: x\r\n\r\n\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		read := func(r io.Reader) (string, error) {
			guard := newHeadGuard(bytesConn{Reader: r}, &guestConn{scheme: "http"}, func(*denial) {})
			passed, err := io.ReadAll(guard)
			return string(passed), err
		}
		whole, err := read(bytes.NewReader(data))
		cut, cutErr := read(iotest.OneByteReader(bytes.NewReader(data)))
		if whole != cut || (err == nil) != (cutErr == nil) {
			t.Fatalf("%q, %v; byte by byte %q, %v", whole, err, cut, cutErr)
		}
		if err != nil && asDenial(err) == nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%v", err)
		}
	})
}

// FuzzCheckHead: net/http finds the same body after a head that passes.
func FuzzCheckHead(f *testing.F) {
	for _, tt := range smuggled {
		f.Add([]byte(tt.head))
	}
	f.Add([]byte("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n"))
	f.Add([]byte("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nUpgrade: b\r\n\r\n"))
	f.Fuzz(func(t *testing.T, head []byte) {
		want, err := checkHead(head)
		if err != nil {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
		if err != nil {
			return // net/http refuses more, such as targets that are no URL
		}
		chunked := slices.Equal(r.TransferEncoding, []string{"chunked"})
		if chunked != want.chunked || !chunked && r.ContentLength != want.length || (r.Header["Upgrade"] != nil) != want.upgrade {
			t.Fatalf("%+v, but net/http has %d %v %v", want, r.ContentLength, r.TransferEncoding, r.Header)
		}
	})
}
