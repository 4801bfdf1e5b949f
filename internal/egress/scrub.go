package egress

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// scrubHeader puts placeholders back where values are, in place.
func (v *vault) scrubHeader(h http.Header, encoded []string) {
	if len(v.entries) == 0 {
		return
	}
	pairs := make([]string, 0, 2*(len(v.entries)+len(encoded)))
	for _, e := range v.entries {
		pairs = append(pairs, e.value(), e.placeholder)
	}
	for _, text := range encoded {
		pairs = append(pairs, text, "[redacted]")
	}
	replacer := strings.NewReplacer(pairs...)
	for _, values := range h {
		for i, value := range values {
			values[i] = replacer.Replace(value)
		}
	}
}

// scrubText is scrubHeader for the text of an error, which may quote what the
// server sent.
func (v *vault) scrubText(s string, encoded []string) string {
	for _, e := range v.entries {
		quoted := strconv.Quote(e.value())
		s = strings.ReplaceAll(s, quoted[1:len(quoted)-1], e.placeholder)
	}
	h := http.Header{"": {s}}
	v.scrubHeader(h, encoded)
	return h[""][0]
}

// scrubBody masks every occurrence of the values with as many "*". It holds
// back only a tail that could be the beginning of a value, so a stream keeps
// flowing.
type scrubBody struct {
	src    io.ReadCloser
	values [][]byte
	atEnd  func() // called once, when src reports its end

	buf  []byte // read and not yet returned
	safe int    // how much of buf can be returned
	err  error  // from src, due when buf is empty
}

func newScrubBody(src io.ReadCloser, values []string, atEnd func()) *scrubBody {
	b := &scrubBody{src: src, atEnd: atEnd}
	for _, v := range values {
		b.values = append(b.values, []byte(v))
	}
	return b
}

// Close closes the body underneath.
func (b *scrubBody) Close() error { return b.src.Close() }

// Read implements io.Reader.
func (b *scrubBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for b.safe == 0 && b.err == nil {
		b.fill()
	}
	if b.safe == 0 {
		return 0, b.err
	}
	n := copy(p, b.buf[:b.safe])
	b.buf, b.safe = b.buf[n:], b.safe-n
	return n, nil
}

func (b *scrubBody) fill() {
	held := len(b.buf)
	grown := make([]byte, held+scrubBuffer)
	copy(grown, b.buf)
	n, err := b.src.Read(grown[held:])
	b.buf, b.err = grown[:held+n], err
	for _, v := range b.values {
		maskAll(b.buf, v)
	}
	b.safe = len(b.buf)
	if err != nil {
		b.atEnd()
		return
	}
	for _, v := range b.values {
		b.safe = min(b.safe, len(b.buf)-partial(b.buf, v))
	}
}

func maskAll(buf, v []byte) {
	for at := 0; ; {
		i := bytes.Index(buf[at:], v)
		if i < 0 {
			return
		}
		at += i
		for range v {
			buf[at] = '*'
			at++
		}
	}
}

// partial returns the length of the longest end of buf that begins v.
func partial(buf, v []byte) int {
	for n := min(len(v)-1, len(buf)); n > 0; n-- {
		if buf[len(buf)-n] == v[0] && bytes.HasPrefix(v, buf[len(buf)-n:]) {
			return n
		}
	}
	return 0
}
