package egress

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// malformedHeader marks the request that a headGuard puts in the place of one it
// refuses. Its value is the reason. No guest can send it over HTTP/1: checkHead
// refuses it.
const malformedHeader = "Gondolin-Malformed"

const (
	http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" // RFC 9113 section 3.4

	// maxChunkLine bounds a chunk's size line, and all trailers of a body, in
	// bytes; net/http takes no more.
	maxChunkLine = 4 << 10

	guardRead = 4 << 10 // bytes asked for at a time while looking for an end

	unbounded = math.MaxInt64
)

// guardState is what a headGuard expects next.
type guardState int

const (
	guardFirst    guardState = iota // the first head, or HTTP/2's preface
	guardHead                       // a further head
	guardChunk                      // a chunk's size line
	guardChunkEnd                   // the CRLF after a chunk
	guardTrailer                    // a trailer, or the empty line after them
	guardAside                      // nothing: another protocol follows
	guardRefused                    // nothing: the connection is over
)

// headGuard is a guest's connection as net/http gets to read it: no byte of a
// head before checkHead has seen all of it, and no byte beyond the message. Bytes
// pass unchanged. It is read by one goroutine at a time, as net/http does.
type headGuard struct {
	net.Conn

	guest  *guestConn
	refuse func(*denial) // records a body that is refused
	buf    []byte        // where in begins anew when it is empty
	in     []byte        // read, and not yet passed on
	lines  int           // bytes at the start of in that are whole lines of a head or trailers
	seen   int           // bytes of in that end no line after lines; not looked at again
	pass   int64         // bytes that may pass before state is looked at

	state   guardState
	upgrade bool // after this message comes another protocol
	err     error
}

func newHeadGuard(conn net.Conn, guest *guestConn, refuse func(*denial)) *headGuard {
	return &headGuard{Conn: conn, guest: guest, refuse: refuse}
}

// Read implements io.Reader. Errors of the connection, which a deadline's is one
// of, do not stay.
func (g *headGuard) Read(p []byte) (int, error) {
	for g.pass == 0 {
		if g.err != nil {
			return 0, g.err
		}
		if err := g.advance(); err == nil {
			continue
		} else if !errors.Is(err, errLineOpen) {
			g.refused(asDenial(err))
			continue
		}
		if err := g.fill(); err != nil {
			return 0, err
		}
	}
	p = p[:min(int64(len(p)), g.pass)]
	var n int
	var err error
	if len(g.in) > 0 {
		n = copy(p, g.in)
		g.in = g.in[n:]
	} else {
		n, err = g.Conn.Read(p)
	}
	if g.pass != unbounded {
		g.pass -= int64(n)
	}
	return n, err
}

// CloseWrite lets net/http end its side first, so that the guest reads the
// refusal of what it is still sending.
func (g *headGuard) CloseWrite() error {
	if conn, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return conn.CloseWrite()
	}
	return nil
}

func (g *headGuard) fill() error {
	if len(g.in) == 0 {
		g.in = g.buf[:0]
	}
	g.in = slices.Grow(g.in, guardRead)
	if len(g.in) == 0 {
		g.buf = g.in
	}
	n, err := g.Conn.Read(g.in[len(g.in) : len(g.in)+guardRead])
	g.in = g.in[:len(g.in)+n]
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

// advance looks at what comes next and lets it pass. errLineOpen: not all of it
// is there; other errors are denials.
func (g *headGuard) advance() error {
	switch g.state {
	case guardFirst:
		if done, err := g.preface(); done || err != nil {
			return err
		}
		g.state = guardHead
		return nil
	case guardHead:
		return g.head()
	case guardChunk:
		return g.chunk()
	case guardChunkEnd:
		return g.chunkEnd()
	case guardTrailer:
		return g.trailer()
	case guardAside:
		g.pass = unbounded
	case guardRefused:
		g.err = io.EOF
	}
	return nil
}

// preface steps aside for HTTP/2, exactly where net/http takes it for that.
func (g *headGuard) preface() (done bool, err error) {
	n := min(len(g.in), len(http2Preface))
	switch {
	case g.guest.scheme != "http" || string(g.in[:n]) != http2Preface[:n]:
		return false, nil
	case n < len(http2Preface):
		return false, errLineOpen
	}
	g.state, g.pass = guardAside, unbounded
	return true, nil
}

// head finds a whole head, at most maxRequestHead long.
func (g *headGuard) head() error {
	for g.lines == 0 && bytes.HasPrefix(g.in, []byte("\r\n")) {
		g.in = g.in[2:] // before a request line they mean nothing, RFC 9112 section 2.2
	}
	for {
		start := g.lines
		n, err := g.lineEnd(len(g.in), start)
		if max(n, len(g.in)) > maxRequestHead && (err != nil || n > maxRequestHead) {
			d := malformed("the head is longer than " + strconv.Itoa(maxRequestHead) + " bytes")
			d.status = http.StatusRequestHeaderFieldsTooLarge
			return d
		}
		if err != nil {
			return err
		}
		if g.lines = n; n > start+2 {
			continue
		}
		f, err := checkHead(g.in[:n])
		if err != nil {
			return err
		}
		g.lines, g.upgrade = 0, f.upgrade
		g.pass = int64(n) + f.length
		g.state = g.next()
		if f.chunked {
			g.state = guardChunk
		}
		return nil
	}
}

// lineEnd is the end of the line from start on, among the first limit bytes.
func (g *headGuard) lineEnd(limit, start int) (int, error) {
	b := g.in[:min(len(g.in), limit)]
	n, err := lineEnd(b, max(start, g.seen))
	g.seen = 0
	if errors.Is(err, errLineOpen) {
		g.seen = max(len(b)-1, 0) // the last may be CR
	}
	return n, err
}

// next is the state after a message.
func (g *headGuard) next() guardState {
	if g.upgrade {
		return guardAside
	}
	return guardHead
}

func (g *headGuard) chunk() error {
	n, err := g.lineEnd(maxChunkLine, 0)
	if errors.Is(err, errLineOpen) && len(g.in) >= maxChunkLine {
		err = malformed("the size line of a chunk is too long")
	}
	if err != nil {
		return err
	}
	size, err := chunkSize(g.in[:n-2])
	if err != nil {
		return err
	}
	g.pass, g.state = int64(n)+size, guardChunkEnd
	if size == 0 {
		g.state = guardTrailer
	}
	return nil
}

func (g *headGuard) chunkEnd() error {
	switch {
	case len(g.in) < 2:
		return errLineOpen
	case g.in[0] != '\r' || g.in[1] != '\n':
		return malformed("a chunk longer than its size")
	}
	g.pass, g.state = 2, guardChunk
	return nil
}

// trailer passes all trailers at once, so that net/http never has a part of them
// before it where it looks for a request.
func (g *headGuard) trailer() error {
	for {
		start := g.lines
		n, err := g.lineEnd(maxChunkLine, start)
		switch {
		case errors.Is(err, errLineOpen) && len(g.in) >= maxChunkLine:
			return malformed("the trailers of a chunked body are too long")
		case err != nil:
			return err
		case n == start+2:
			g.lines, g.pass, g.state = 0, int64(n), g.next()
			return nil
		}
		if _, _, err := checkField(g.in[start : n-2]); err != nil {
			return err
		}
		g.lines = n
	}
}

// refused ends the connection. For a head, net/http is given a request to refuse
// when its turn comes, after the responses under way; a body fails.
func (g *headGuard) refused(d *denial) {
	if g.state != guardHead {
		g.guest.broken.Store(d)
		g.refuse(d)
		g.state, g.err, g.in = guardRefused, d, nil
		return
	}
	g.in = []byte("GET / HTTP/1.1\r\nHost: gondolin.invalid\r\nConnection: close\r\n" +
		malformedHeader + ": " + strconv.Itoa(d.status) + " " + d.reason + "\r\n\r\n")
	g.pass, g.state = int64(len(g.in)), guardRefused
}

// malformedRequest is why a headGuard refused the request it put r in the place
// of, or nil.
func malformedRequest(r *http.Request) *denial {
	text := r.Header.Get(malformedHeader)
	if text == "" || r.ProtoMajor != 1 {
		return nil
	}
	d := malformed(text)
	if status, reason, ok := strings.Cut(text, " "); ok {
		d.reason = reason
		if status == strconv.Itoa(http.StatusRequestHeaderFieldsTooLarge) {
			d.status = http.StatusRequestHeaderFieldsTooLarge
		}
	}
	return d
}
