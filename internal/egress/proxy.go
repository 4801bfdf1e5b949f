package egress

import (
	"cmp"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync/atomic"

	"gondolin/internal/audit"
	"gondolin/policy"
)

// newProxy forwards requests that were allowed. Everything between it and
// lastMile sees placeholders only.
func newProxy(s *session) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite:       rewrite,
		Transport:     &lastMile{session: s},
		FlushInterval: -1, // streams keep flowing
		ErrorHandler:  s.upstreamFailed,
		ErrorLog:      slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
}

// rewrite addresses the request to the target that was decided, and puts back
// what ReverseProxy takes out.
func rewrite(pr *httputil.ProxyRequest) {
	x := exchangeOf(pr.In.Context())
	out := pr.Out
	out.URL.Scheme, out.URL.Host, out.URL.User = x.query.Scheme, hostPort(x.query), nil
	out.URL.RawQuery, out.URL.ForceQuery = pr.In.URL.RawQuery, pr.In.URL.ForceQuery
	out.Host = pr.In.Host
	out.Trailer = pr.In.Trailer // the server fills in this very map when the body has been read
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values, ok := pr.In.Header[name]; ok {
			out.Header[name] = values
		}
	}
}

// hostPort is the host and port of a URL, the port always written.
func hostPort(q policy.Request) string { return policy.JoinHostPort(q.Host, q.Port) }

// lastMile is the bottom of the RoundTripper chain: what it sends is what goes
// on the wire. It decides again, since what lies above may have changed the
// request, puts the secrets in, and scrubs what comes back.
type lastMile struct{ session *session }

// RoundTrip implements http.RoundTripper. It does not change r.
func (m *lastMile) RoundTrip(r *http.Request) (*http.Response, error) {
	s, x := m.session, exchangeOf(r.Context())
	if x == nil {
		return nil, errors.New("cannot send a request that was not decided")
	}
	q, err := wireRequest(r)
	if err != nil {
		return nil, err
	}
	decision, d := s.decide(q)
	if d != nil {
		return nil, d
	}
	trailer := r.Trailer
	r = r.Clone(r.Context())
	r.Trailer = trailer
	if d := boundRequest(r, x, decision); d != nil {
		return nil, d
	}
	done, d := s.vault.inject(r, q)
	if d != nil {
		return nil, d
	}
	x.secrets, x.encoded = done.used, done.encoded
	if len(done.used) > 0 {
		s.record(audit.Event{Kind: audit.Secret, Decision: audit.Allow, Request: x.id, Secrets: done.used, Host: q.Host, Port: q.Port})
		if s.audit.Err() != nil {
			return nil, unrecorded()
		}
	}
	if _, asked := r.Header["Accept-Encoding"]; asked && len(done.used) > 0 {
		r.Header.Set("Accept-Encoding", "identity") // so that the answer can be scrubbed
	}
	resp, err := s.upstream.send(r, x)
	if err != nil {
		return nil, err
	}
	if d := boundResponse(resp, x, decision); d != nil {
		_ = resp.Body.Close()
		return nil, d
	}
	m.scrub(resp, x, q, done)
	return resp, nil
}

// wireRequest says what the policy is asked about a request about to leave.
func wireRequest(r *http.Request) (policy.Request, error) {
	host, port, err := splitHost(r.URL.Host, r.URL.Scheme)
	if err != nil {
		return policy.Request{}, err
	}
	if r.URL.Opaque != "" {
		return policy.Request{}, deny("the request's target is opaque, so no rule can judge it")
	}
	q := policy.Request{Scheme: r.URL.Scheme, Host: host, Port: port, Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery}
	if q.Path == "" {
		q.Path = "/"
	}
	if r.Host != "" {
		if named, namedPort, err := splitHost(r.Host, r.URL.Scheme); err != nil || named != host || namedPort != port {
			return q, deny("the Host header does not name %s", policy.JoinHostPort(host, port))
		}
	}
	return q, nil
}

// scrub keeps secret values out of a response.
func (m *lastMile) scrub(resp *http.Response, x *exchange, q policy.Request, done injection) {
	v := m.session.vault
	v.scrubHeader(resp.Header, done.encoded) // after an upgrade nobody else does
	if resp.StatusCode == http.StatusSwitchingProtocols {
		x.status = resp.StatusCode
		if stream, ok := resp.Body.(io.ReadWriteCloser); ok {
			resp.Body = &countingStream{ReadWriteCloser: stream, sent: &x.sent, received: &x.received}
		}
		return
	}
	values := slices.Clone(done.encoded)
	for _, e := range v.entries {
		if v.engine.Secret(e.name, q).Allowed {
			values = append(values, e.value())
		}
	}
	if len(values) == 0 || resp.Body == nil || resp.Body == http.NoBody {
		return
	}
	if encoding := strings.Join(resp.Header["Content-Encoding"], ","); encoding != "" && !strings.EqualFold(encoding, "identity") {
		x.note = "the body was not searched for secrets: its encoding is " + encoding
		values = nil // the trailers are plain text all the same
	}
	resp.Body = newScrubBody(resp.Body, values, func() { v.scrubHeader(resp.Trailer, done.encoded) })
}

// countingStream counts an upgraded connection.
type countingStream struct {
	io.ReadWriteCloser
	sent, received *atomic.Int64
}

// Read implements io.Reader: bytes towards the guest.
func (c *countingStream) Read(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Read(p)
	c.received.Add(int64(n))
	return n, err
}

// Write implements io.Writer: bytes from the guest.
func (c *countingStream) Write(p []byte) (int, error) {
	n, err := c.ReadWriteCloser.Write(p)
	c.sent.Add(int64(n))
	return n, err
}

// upstreamFailed is ReverseProxy's ErrorHandler.
func (s *session) upstreamFailed(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	d := cmp.Or(x.over.Load(), asDenial(err))
	if conn, ok := r.Context().Value(connKey{}).(*guestConn); ok && d == nil {
		d = conn.broken.Load() // err may be that the request was cancelled for it
	}
	if d != nil {
		x.refuse(w, r, d)
		return
	}
	x.fail(w, s.vault.scrubText(err.Error(), x.encoded), failureKind(err))
}
