package egress

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"gondolin/policy"
)

// target reads off a request where it is meant to go, and refuses it unless
// the connection's name and port, and the request's, agree (RFC 9112 section
// 3.3, RFC 9110 section 7.4).
func (c *guestConn) target(r *http.Request) (policy.Request, *denial) {
	q := policy.Request{Scheme: c.scheme, Host: c.host, Port: int(c.flow.Addr.Port()), Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery}
	if d := malformedRequest(r); d != nil {
		q.Method, q.Path = "", "" // they are not the guest's
		return q, d
	}
	if q.Path == "" {
		q.Path = "/"
	}
	switch {
	case c.fault != "":
		return q, deny("%s", c.fault)
	case r.Method == http.MethodConnect:
		return q, deny("CONNECT is not supported: connect to the host itself")
	case r.ProtoMajor != 1 && r.ProtoMajor != 2:
		return q, &denial{status: http.StatusHTTPVersionNotSupported, reason: "only HTTP/1.1 and HTTP/2 are supported"}
	case r.ProtoMajor == 2 && !oneHost(r):
		return q, &denial{status: http.StatusBadRequest, reason: "the request's :authority and Host differ"}
	case r.RequestURI == "*":
		return q, &denial{status: http.StatusNotImplemented, reason: "OPTIONS * is not supported"}
	case r.URL.Opaque != "" || r.URL.IsAbs() && r.URL.Host == "":
		// "http:x" goes out as "x", whatever that is: another path than the
		// one decided, or with "http:http://other/" another host.
		return q, &denial{status: http.StatusBadRequest, reason: "the request's target has a scheme but no host"}
	case r.URL.IsAbs() && r.URL.Scheme != c.scheme:
		return q, deny("the request is for scheme %q on a connection for %s", r.URL.Scheme, c.scheme)
	case r.Host == "":
		return q, deny("the request names no host")
	}
	if upgrade := r.Header.Get("Upgrade"); upgrade != "" && !strings.EqualFold(upgrade, "websocket") {
		return q, &denial{status: http.StatusNotImplemented, reason: fmt.Sprintf("upgrading to %q is not supported", upgrade)}
	}
	host, port, err := splitHost(r.Host, c.scheme)
	if err != nil {
		return q, deny("the request names a bad host: %v", err)
	}
	if host != c.host || port != q.Port {
		d := deny("the request names host %s on a connection that went to %s",
			policy.JoinHostPort(host, port), policy.JoinHostPort(c.host, q.Port))
		if r.ProtoMajor == 2 {
			d.status = http.StatusMisdirectedRequest // RFC 9110 section 15.5.20: the client may use another connection
		}
		return q, d
	}
	return q, nil
}

// oneHost reports whether an HTTP/2 request that has a Host field besides
// :authority, which net/http prefers, says the same in both (RFC 9113 section
// 8.3.1).
func oneHost(r *http.Request) bool {
	for _, host := range r.Header["Host"] {
		if host != r.Host {
			return false
		}
	}
	return true
}

// splitHost reads a Host header, RFC 9110 section 7.2. A missing port is the
// scheme's default.
func splitHost(text, scheme string) (host string, port int, err error) {
	port = 80
	if scheme == "https" {
		port = 443
	}
	host = text
	if i := strings.LastIndexByte(text, ':'); i >= 0 && !strings.HasSuffix(text, "]") {
		n, err := strconv.ParseUint(text[i+1:], 10, 16)
		if err != nil {
			return "", 0, fmt.Errorf("port %q is not a number", text[i+1:])
		}
		host, port = text[:i], int(n)
	}
	host, err = policy.CanonicalHost(host)
	return host, port, err
}
