package egress

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"gondolin/internal/audit"
	"gondolin/policy"
)

// exchange is one request and what is known of it so far.
type exchange struct {
	id       uint64 // number in the audit log
	query    policy.Request
	start    time.Time
	rule     string
	upgrade  bool // its headGuard steps aside: the connection ends unless it is switched
	h2c      bool // it came over HTTP/2 without TLS
	denied   *denial
	admitted bool                   // it was recorded, and will be as a response
	over     atomic.Pointer[denial] // a body went over its bound
	failure  string                 // why the response is not the server's
	ours     bool                   // the response is complete and did not come from the server
	note     string                 // what else the audit log should say
	secrets  []string               // names of the secrets sent
	encoded  []string               // header values that hold a secret in encoded form

	status   int
	sent     atomic.Int64 // body bytes; a transport may still read the body when the response is done
	received atomic.Int64
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// serveRequest is the life of one request: decide, forward, record.
func (s *session) serveRequest(w http.ResponseWriter, r *http.Request) {
	if !s.begin() {
		panic(http.ErrAbortHandler)
	}
	defer s.requests.Done()
	running := s.running.Add(1)
	defer s.running.Add(-1)
	conn, ok := r.Context().Value(connKey{}).(*guestConn)
	if !ok {
		panic(http.ErrAbortHandler) // cannot be: every connection is one
	}
	x := &exchange{id: s.numbers.Add(1), start: time.Now()}
	out := &responseWriter{ResponseWriter: w, x: x, vault: s.vault}
	defer s.finish(x, out, r)
	var d *denial
	x.query, d = conn.target(r)
	x.h2c = r.ProtoMajor == 2 && conn.scheme == "http"
	x.upgrade = r.ProtoMajor == 1 && r.Header["Upgrade"] != nil
	if d == nil && running > maxRequests {
		d = &denial{status: http.StatusServiceUnavailable, code: codeBusy, reason: fmt.Sprintf("%d requests are under way", maxRequests)}
	}
	if d == nil {
		var decision policy.Decision
		decision, d = s.decide(x.query)
		x.rule = decision.Rule
	}
	if d == nil {
		d = s.admit(x)
	}
	if d != nil {
		x.refuse(out, r, d)
		return
	}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &countingBody{ReadCloser: r.Body, n: &x.sent}
	}
	s.proxy.ServeHTTP(out, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x)))
}

// finish records the request, however it ended. A panic other than net/http's
// own way to drop a connection is a fault of ours and becomes a refusal.
func (s *session) finish(x *exchange, out *responseWriter, r *http.Request) {
	p := recover() //nolint:revive // finish is the deferred function
	if p != nil {
		x.failure = "the connection was dropped"
		if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
			x.failure = fmt.Sprintf("the request could not be decided: %v", p)
			if x.status == 0 {
				x.refuse(out, r, &denial{status: http.StatusInternalServerError, code: codeFault, reason: "the request could not be decided"})
			}
		}
	}
	s.recordEnd(x)
	if p != nil && !x.ours {
		panic(http.ErrAbortHandler)
	}
}

// admit records a request that is about to be forwarded. What cannot be recorded
// is not forwarded.
func (s *session) admit(x *exchange) *denial {
	e := x.event(audit.Request, audit.Allow)
	e.Rule = x.rule
	s.record(e)
	x.admitted = true
	if s.audit.Err() != nil {
		return unrecorded()
	}
	return nil
}

// event is what every event about a request has.
func (x *exchange) event(kind audit.Kind, decision audit.Decision) audit.Event {
	q := x.query
	return audit.Event{
		Kind: kind, Decision: decision, Request: x.id,
		Scheme: q.Scheme, Method: q.Method, Host: q.Host, Port: q.Port, Path: q.Path,
	}
}

// recordEnd records how a request ended: one that was never admitted as the
// request it was.
func (s *session) recordEnd(x *exchange) {
	kind := audit.Response
	if !x.admitted {
		kind = audit.Request
	}
	e := x.event(kind, audit.Allow)
	e.Rule, e.Reason = x.rule, cmp.Or(x.failure, x.note)
	e.Status, e.Sent, e.Received, e.DurationMS, e.Secrets = x.status, x.sent.Load(), x.received.Load(), elapsed(x.start), x.secrets
	if d := cmp.Or(x.denied, x.over.Load()); d != nil {
		e.Decision, e.Code, e.Rule, e.Reason = audit.Deny, string(d.code), d.rule, d.reason
	}
	s.record(e)
}

// decide asks the policy. Whatever cannot be recorded is not allowed.
func (s *session) decide(q policy.Request) (policy.Decision, *denial) {
	if s.audit.Err() != nil {
		return policy.Decision{}, unrecorded()
	}
	decision := s.engine.Request(q)
	if !decision.Allowed {
		return decision, refusal(decision)
	}
	return decision, nil
}

// fail answers for an upstream that could not. The audit gets the reason, and the
// guest only its kind: the rest tells of the host's network.
func (x *exchange) fail(w http.ResponseWriter, reason, kind string) {
	x.failure = reason
	x.answer(w, http.StatusBadGateway, fmt.Sprintf("gondolin: cannot reach %s://%s: %s", x.query.Scheme,
		policy.JoinHostPort(x.query.Host, x.query.Port), kind))
}

// failureKind says what went wrong upstream without naming any address.
func failureKind(err error) string {
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return "no such host"
	} else if ok {
		return "its name could not be resolved"
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "its certificate is not trusted"
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return "it did not answer in time"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return "it does not accept connections"
	}
	return "the connection failed"
}

func (x *exchange) answer(w http.ResponseWriter, status int, text string) {
	x.answerAs(w, status, "text/plain; charset=utf-8", text)
}

func (x *exchange) answerAs(w http.ResponseWriter, status int, kind, text string) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // the guest may be gone
	x.ours = true
}

// countingBody counts what the guest sends.
type countingBody struct {
	io.ReadCloser
	n *atomic.Int64
}

// Read implements io.Reader.
func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

// responseWriter counts what the guest gets, scrubs every head, interim ones
// too, and keeps net/http from adding headers the server did not send.
type responseWriter struct {
	http.ResponseWriter
	x     *exchange
	vault *vault
}

// Unwrap lets http.ResponseController flush and hijack.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *responseWriter) WriteHeader(status int) {
	w.vault.scrubHeader(w.Header(), w.x.encoded)
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.x.status = status
		h := w.Header()
		for _, name := range []string{"Date", "Content-Type"} {
			if _, ok := h[name]; !ok {
				h[name] = nil // present and empty: net/http leaves it out
			}
		}
		if w.x.upgrade && status != http.StatusSwitchingProtocols {
			h.Set("Connection", "close")
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *responseWriter) Write(p []byte) (int, error) {
	if w.x.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(p)
	w.x.received.Add(int64(n))
	return n, err
}
