package egress

import (
	"bytes"
	"errors"
	"math"
	"net/http"
	"strings"
)

// codeMalformed is the refusal of an HTTP/1 message that two parsers could read
// in two ways.
const codeMalformed = "malformed"

// framing is what a request head says of the bytes after it.
type framing struct {
	length  int64 // of the body, in bytes; 0 if chunked
	chunked bool
	upgrade bool // another protocol may follow the body
}

// malformed is the refusal of what RFC 9112 does not allow. reason has no byte of
// the guest's.
func malformed(reason string) *denial {
	return &denial{status: http.StatusBadRequest, code: codeMalformed, reason: reason}
}

// requestHead gathers what fields say together.
type requestHead struct {
	framing
	lengths, encodings, hosts int
	host                      []byte
}

// checkHead holds the head of an HTTP/1 request, up to and with its empty line,
// against the grammar of RFC 9112, without the leniency that lets one parser find
// a request where another sees a body. The error is a *denial.
func checkHead(head []byte) (framing, error) {
	lines, ok := bytes.CutSuffix(head, []byte("\r\n\r\n"))
	if !ok {
		return framing{}, malformed("the head does not end in an empty line")
	}
	requestLine, fields, more := bytes.Cut(lines, []byte("\r\n"))
	target, minor, err := checkRequestLine(requestLine)
	if err != nil {
		return framing{}, err
	}
	var h requestHead
	for more {
		var line []byte
		line, fields, more = bytes.Cut(fields, []byte("\r\n"))
		name, value, err := checkField(line)
		if err != nil {
			return framing{}, err
		}
		if err := h.add(name, value); err != nil {
			return framing{}, err
		}
	}
	switch {
	case h.encodings > 0 && h.lengths > 0:
		return framing{}, malformed("Transfer-Encoding and Content-Length in one request")
	case h.encodings > 0 && minor == '0':
		return framing{}, malformed("Transfer-Encoding in an HTTP/1.0 request")
	case h.hosts > 0 && !sameHost(target, h.host):
		return framing{}, malformed("the target names another host than Host")
	}
	return h.framing, nil
}

// checkRequestLine is RFC 9112 section 3: single spaces, nothing else.
func checkRequestLine(line []byte) (target []byte, minor byte, err error) {
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, version, _ := bytes.Cut(rest, []byte(" "))
	if !isToken(method) || len(target) == 0 {
		return nil, 0, malformed("the request line is not a method, a target and a version")
	}
	for _, c := range target {
		if c <= ' ' || c == 0x7f {
			return nil, 0, malformed("a control byte or tab in the target")
		}
	}
	switch string(version) {
	case "HTTP/1.0", "HTTP/1.1":
		return target, version[len(version)-1], nil
	}
	return nil, 0, malformed("the request line does not end in HTTP/1.1 or HTTP/1.0")
}

// checkField splits a field line (RFC 9112 section 5) into name and trimmed value.
func checkField(line []byte) (name, value []byte, err error) {
	if len(line) == 0 {
		return nil, nil, malformed("an empty line within the head")
	}
	if line[0] == ' ' || line[0] == '\t' {
		return nil, nil, malformed("a field line that starts with whitespace")
	}
	name, value, found := bytes.Cut(line, []byte(":"))
	if !found || !isToken(name) {
		return nil, nil, malformed("a field name that is not a token followed by a colon")
	}
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, nil, malformed("a control byte in a field value")
		}
	}
	return name, bytes.Trim(value, " \t"), nil
}

func (h *requestHead) add(name, value []byte) error {
	switch strings.ToLower(string(name)) {
	case "content-length":
		n, ok := decimal(value)
		if h.lengths++; h.lengths > 1 || !ok {
			return malformed("a Content-Length that is not one number")
		}
		h.length = n
	case "transfer-encoding":
		if h.encodings++; h.encodings > 1 || !strings.EqualFold(string(value), "chunked") {
			return malformed("a Transfer-Encoding other than chunked")
		}
		h.chunked = true
	case "host":
		if h.hosts++; h.hosts > 1 {
			return malformed("more than one Host")
		}
		h.host = value
	case "upgrade":
		h.upgrade = true
	case strings.ToLower(malformedHeader):
		return malformed("a field that is reserved")
	}
	return nil
}

// sameHost reports whether a target in absolute form (RFC 9112 section 3.2.2) has
// the host and port that Host has. Other forms name none.
func sameHost(target, host []byte) bool {
	scheme, rest, found := strings.Cut(string(target), "://")
	if !found || target[0] == '/' || target[0] == '*' {
		return true
	}
	scheme = strings.ToLower(scheme)
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	name, port, err := splitHost(rest, scheme)
	hostName, hostPort, hostErr := splitHost(string(host), scheme)
	return err == nil && hostErr == nil && name == hostName && port == hostPort
}

// isToken is RFC 9110 section 5.6.2.
func isToken(b []byte) bool {
	for _, c := range b {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return len(b) > 0
}

// decimal reads digits and nothing else, not even a sign.
func decimal(b []byte) (n int64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' || n > (math.MaxInt64>>1)/10 { // half: bytes before a body are added to it
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, len(b) > 0
}

// errLineOpen says that a line has not ended yet.
var errLineOpen = errors.New("cannot see the end of the line yet")

// lineEnd finds the CRLF at or after from and returns the length of b with it. A
// CR or LF by itself is malformed.
func lineEnd(b []byte, from int) (int, error) {
	for i := max(from, 0); i < len(b); i++ {
		switch {
		case b[i] == '\n':
			return 0, malformed("a line that ends in LF without CR")
		case b[i] != '\r':
		case i+1 == len(b):
			return 0, errLineOpen
		case b[i+1] != '\n':
			return 0, malformed("a CR without LF")
		default:
			return i + 2, nil
		}
	}
	return 0, errLineOpen
}

// chunkSize reads a chunk's size line (RFC 9112 section 7.1) without its CRLF.
// Extensions are let through, whitespace before them is not.
func chunkSize(line []byte) (int64, error) {
	const maxDigits = 15 // so that it fits, with what is around it
	size, extension, _ := bytes.Cut(line, []byte(";"))
	if len(size) == 0 || len(size) > maxDigits {
		return 0, malformed("a chunk size that is not 1 to 15 hexadecimal digits")
	}
	var n int64
	for _, c := range size {
		digit := strings.IndexByte("0123456789abcdef", c|0x20)
		if c < '0' || digit < 0 || digit > 9 && c|0x20 < 'a' {
			return 0, malformed("a chunk size that is not hexadecimal")
		}
		n = n<<4 | int64(digit)
	}
	for _, c := range extension {
		if c < ' ' && c != '\t' || c == 0x7f {
			return 0, malformed("a control byte in a chunk extension")
		}
	}
	return n, nil
}
