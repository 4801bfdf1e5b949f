package egress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// protocol is what a connection speaks, as far as its first bytes tell.
type protocol int

const (
	protocolUndecided protocol = iota // needs more bytes
	protocolHTTP
	protocolTLS
	protocolOther
)

// maxMethod bounds the method's length in bytes; the longest registered one is
// UPDATEREDIRECTREF.
const maxMethod = 20

var errNotHTTP = errors.New("cannot serve a protocol other than HTTP and TLS")

// peek reads until the protocol is decided, at most peekSize bytes. It returns
// what it read, which is still to be processed. It does not close r.
func peek(r io.Reader) (protocol, []byte, error) {
	buf := make([]byte, 0, peekSize)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if p := classify(buf); p != protocolUndecided {
			return p, buf, nil
		}
		if err != nil {
			return protocolOther, buf, fmt.Errorf("cannot tell the protocol from %d bytes: %w", len(buf), err)
		}
		if len(buf) == cap(buf) {
			return protocolOther, buf, errNotHTTP
		}
	}
}

// classify decides by the first bytes b of a connection. More bytes never
// change a decision.
func classify(b []byte) protocol {
	const handshakeRecord, majorVersion = 0x16, 0x03 // RFC 8446 section 5.1
	switch {
	case len(b) == 0:
		return protocolUndecided
	case b[0] == handshakeRecord && len(b) == 1:
		return protocolUndecided
	case b[0] == handshakeRecord && b[1] == majorVersion:
		return protocolTLS
	}
	return classifyHTTP(b)
}

// classifyHTTP looks for a request line: letters, a space, and the start of a
// target (RFC 9112 section 3.2).
func classifyHTTP(b []byte) protocol {
	method, target, found := bytes.Cut(b, []byte(" "))
	if len(method) == 0 || len(method) > maxMethod {
		return protocolOther
	}
	for _, c := range method {
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' {
			return protocolOther
		}
	}
	switch {
	case !found || len(target) == 0:
		return protocolUndecided
	case string(method) == "CONNECT" || target[0] == '/' || target[0] == '*':
		return protocolHTTP
	}
	for _, scheme := range []string{"http://", "https://"} {
		n := min(len(target), len(scheme))
		if strings.EqualFold(string(target[:n]), scheme[:n]) {
			if n == len(scheme) {
				return protocolHTTP
			}
			return protocolUndecided
		}
	}
	return protocolOther
}
