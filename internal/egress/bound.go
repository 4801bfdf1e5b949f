package egress

import (
	"fmt"
	"io"
	"math"
	"net/http"

	"gondolin/policy"
)

// boundRequest keeps the body of r, which it changes, within the bound of its rule.
// One that says beforehand that it is longer is refused before anything leaves.
func boundRequest(r *http.Request, x *exchange, d policy.Decision) *denial {
	if d.MaxRequest == 0 || r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	over := requestOver(d.MaxRequest, d.Rule)
	if r.ContentLength > d.MaxRequest {
		x.over.Store(over)
		return over
	}
	r.Body = &boundBody{body: r.Body, left: d.MaxRequest, over: over, exchange: x}
	return nil
}

func requestOver(bound int64, rule string) *denial {
	return &denial{
		status: http.StatusRequestEntityTooLarge, code: codeRequest, rule: rule,
		reason: fmt.Sprintf("the request's body is longer than the %d bytes that its rule allows", bound),
	}
}

// boundResponse does the same for a response. What goes over it later is cut off:
// the connection breaks, so that the guest cannot take it for the whole.
func boundResponse(resp *http.Response, x *exchange, d policy.Decision) *denial {
	stream, upgraded := resp.Body.(io.ReadWriteCloser)
	if resp.Body == nil || resp.Body == http.NoBody || d.MaxResponse == 0 && (!upgraded || d.MaxRequest == 0) {
		return nil
	}
	over := &denial{
		status: http.StatusForbidden, code: codeResponse, rule: d.Rule,
		reason: fmt.Sprintf("the response's body is longer than the %d bytes that its rule allows", d.MaxResponse),
	}
	if d.MaxResponse > 0 && resp.ContentLength > d.MaxResponse && resp.Request.Method != http.MethodHead {
		x.over.Store(over)
		return over
	}
	body := boundBody{body: resp.Body, left: d.MaxResponse, over: over, exchange: x}
	if d.MaxResponse == 0 {
		body.left = math.MaxInt64 - 1
	}
	if upgraded { // it must stay writable
		resp.Body = &boundStream{boundBody: body, stream: stream, bound: d.MaxRequest, rule: d.Rule}
		return nil
	}
	resp.Body = &body
	return nil
}

// boundBody ends with an error once it yields more than left bytes.
type boundBody struct {
	body     io.ReadCloser
	left     int64
	over     *denial
	exchange *exchange
}

// Read implements io.Reader. It reads one byte more than it may yield, to tell a
// body that fits from one that does not.
func (b *boundBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.body.Read(p)
	if int64(n) > b.left {
		n = int(b.left)
		b.left = 0
		b.exchange.over.Store(b.over)
		return n, b.over
	}
	b.left -= int64(n)
	return n, err
}

// Close implements io.Closer.
func (b *boundBody) Close() error { return b.body.Close() }

// boundStream is an upgraded connection: what the guest writes counts as its
// request's body.
type boundStream struct {
	boundBody
	stream  io.ReadWriteCloser
	bound   int64 // 0: none
	written int64
	rule    string
}

// Write implements io.Writer.
func (s *boundStream) Write(p []byte) (int, error) {
	if s.bound > 0 && int64(len(p)) > s.bound-s.written {
		over := requestOver(s.bound, s.rule)
		s.exchange.over.Store(over)
		return 0, over
	}
	n, err := s.stream.Write(p)
	s.written += int64(n)
	return n, err
}
