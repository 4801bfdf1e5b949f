package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// aspect is what of a rule a request does not fit, in the order of looking.
type aspect int

const (
	aspectHost aspect = iota
	aspectPort
	aspectScheme
	aspectMethod
	aspectPath
	aspectCondition
	matches
)

// subject is a request with what is found out about it only once.
type subject struct {
	Request
	addr  netip.Addr // valid: the host is this address
	hash  uint32     // of the host, for hostKey
	plain int8       // 1: the path is plain; -1: it is not; 0: not looked at
}

func newSubject(q Request) subject {
	return subject{Request: q, addr: literal(q.Host), hash: hashName(q.Host)}
}

// literal returns the address that a canonical host is. A name does not end in a
// number, so this needs no trying, and no error to be made.
func literal(host string) netip.Addr {
	if strings.IndexByte(host, ':') < 0 && strings.Trim(host, "0123456789.") != "" {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return addr
}

func (s *subject) plainPath() bool {
	if s.plain == 0 {
		s.plain = -1
		if plainPath(s.Path) {
			s.plain = 1
		}
	}
	return s.plain > 0
}

// misses returns the first aspect that r does not match, or matches.
func (r *rule) misses(s *subject) aspect {
	switch {
	case !r.host.matchSubject(s.Host, s.addr):
		return aspectHost
	case !r.hasPort(s.Port):
		return aspectPort
	case len(r.schemes) > 0 && !slices.Contains(r.schemes, s.Scheme):
		return aspectScheme
	case !r.hasMethod(s.Method):
		return aspectMethod
	case !r.hasPath(s):
		return aspectPath
	case r.when != nil && !r.holds(s.Request):
		return aspectCondition
	}
	return matches
}

func (r *rule) hasPort(port int) bool { return len(r.ports) == 0 || slices.Contains(r.ports, port) }

// hasMethod compares exactly, unless the rule refuses: some servers do not care
// about case.
func (r *rule) hasMethod(method string) bool {
	if len(r.methods) == 0 {
		return true
	}
	for _, m := range r.methods {
		if m == method || r.deny != "" && strings.EqualFold(m, method) {
			return true
		}
	}
	return false
}

func (r *rule) hasPath(s *subject) bool {
	if len(r.paths) == 0 {
		return true
	}
	if !s.plainPath() {
		return r.deny != ""
	}
	compare := exactly
	if r.deny != "" {
		compare = loosely
	}
	for _, p := range r.paths {
		if matchPath(p, s.Path, compare) {
			return true
		}
	}
	return false
}

// holds asks the condition. What cannot be decided counts against the request.
func (r *rule) holds(q Request) (holds bool) {
	defer func() {
		if recover() != nil {
			holds = r.deny != ""
		}
	}()
	holds, err := r.when.Holds(q)
	if err != nil {
		return r.deny != ""
	}
	return holds
}

// decide returns the rule that decides, and matches; or, if none does, the one
// that came nearest to allowing, if any, and what it misses.
func (l *layer) decide(s *subject) (*rule, aspect) {
	var nearest *rule
	missing := aspectHost
	for i, key := range l.keys {
		if !key.may(s) {
			continue
		}
		r := &l.rules[i]
		switch missed := r.misses(s); {
		case missed == matches:
			return r, matches
		case missed > missing && r.deny == "":
			nearest, missing = r, missed
		}
	}
	return nearest, missing
}

// Request decides about one request.
func (e *Engine) Request(q Request) Decision {
	s := newSubject(q)
	var d Decision
	for i := range e.layers {
		l := &e.layers[i]
		r, missed := l.decide(&s)
		if missed != matches || r.deny != "" {
			return l.refusal(&s, r, missed)
		}
		if i == 0 {
			d = Decision{Allowed: true, Rule: r.text}
		}
		d.MaxRequest = smallerBound(d.MaxRequest, r.maxRequest)
		d.MaxResponse = smallerBound(d.MaxResponse, r.maxResponse)
	}
	return d
}

// Allows answers as Request does, without saying why, and without allocating
// memory, conditions apart.
func (e *Engine) Allows(q Request) bool {
	s := newSubject(q)
	for i := range e.layers {
		if r, missed := e.layers[i].decide(&s); missed != matches || r.deny != "" {
			return false
		}
	}
	return len(e.layers) > 0
}

// smallerBound returns the smaller of two bounds, of which 0 is none.
func smallerBound(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// refusal puts into words what decide found.
func (l *layer) refusal(s *subject, r *rule, missed aspect) Decision {
	d := Decision{Policy: l.name, Code: CodeNoRule}
	if r != nil {
		d.Rule = r.text
	}
	quoted := strconv.Quote(d.Rule)
	switch missed {
	case matches:
		d.Code, d.Reason = CodeDenied, "rule "+quoted+" refuses it: "+r.deny
	case aspectScheme:
		d.Code, d.Reason = CodeScheme, "rule "+quoted+" does not cover scheme "+s.Scheme
		d.Fix = "use " + strings.Join(r.schemes, " or ") + ", or add the scheme to the rule"
	case aspectMethod:
		d.Code, d.Reason = CodeMethod, "rule "+quoted+" does not cover method "+s.Method
		d.Fix = "add the method to the rule; it has " + strings.Join(r.methods, ", ")
	case aspectPath:
		d.Code, d.Reason = CodePath, "rule "+quoted+" does not cover this path"
		d.Fix = "add the path to the rule; it has " + strings.Join(r.paths, ", ")
		if !s.plainPath() {
			d.Fix = "write the path plainly, without dot or empty segments and needless encoding"
		}
	case aspectCondition:
		d.Code, d.Reason = CodeCondition, "the condition of rule "+quoted+" does not hold: "+r.when.String()
	default:
		d.Reason = "no rule allows host " + JoinHostPort(s.Host, s.Port)
		d.Fix = "allow it with --allow-host " + hostFlag(s.Host, s.Port)
		d.Rule = ""
	}
	if l.name != "" {
		d.Reason = l.name + ": " + d.Reason
		if d.Fix != "" && d.Code == CodeNoRule {
			d.Fix = "allow it by a rule in " + l.name
		}
	}
	return d
}

// hostFlag is the argument of --allow-host that allows a host and port.
func hostFlag(host string, port int) string {
	switch {
	case port != 80 && port != 443:
		return JoinHostPort(host, port)
	case strings.Contains(host, ":"):
		return "[" + host + "]"
	}
	return host
}

// Connect decides whether any request at all could be allowed over a
// connection to host and port.
func (e *Engine) Connect(host string, port int) Decision {
	s := newSubject(Request{Host: host, Port: port})
	text := ""
	for i := range e.layers {
		l := &e.layers[i]
		r := l.connects(&s)
		if r == nil || r.deny != "" {
			missed := aspectHost
			if r != nil {
				missed = matches
			}
			return l.refusal(&s, r, missed)
		}
		if i == 0 {
			text = r.text
		}
	}
	return Decision{Allowed: true, Rule: text}
}

// connects returns the first rule that allows something of host and port, or
// refuses all of it.
func (l *layer) connects(s *subject) *rule {
	for i := range l.rules {
		r := &l.rules[i]
		if (r.deny == "" || r.refusesAll() && len(r.schemes) == 0) && r.host.matchSubject(s.Host, s.addr) && r.hasPort(s.Port) {
			return r
		}
	}
	return nil
}

// PortAllowed reports whether any rule allows something on the port, for whatever
// host.
func (e *Engine) PortAllowed(port int) bool {
	for i := range e.layers {
		if !slices.ContainsFunc(e.layers[i].rules, func(r rule) bool { return r.deny == "" && r.hasPort(port) }) {
			return false
		}
	}
	return true
}

// Address decides whether host, already allowed by a rule, may be reached at
// addr.
func (e *Engine) Address(host string, addr netip.Addr) Decision {
	what, internal := Internal(addr)
	if !internal {
		return Decision{Allowed: true, Rule: "public address"}
	}
	d := e.ExemptInternal(host, addr)
	if !d.Allowed {
		d.Reason += " (" + what + ")"
	}
	return d
}

// ExemptInternal decides whether AllowInternal names the host or the address.
// Callers use it for addresses they know to be internal, such as the host's own.
func (e *Engine) ExemptInternal(host string, addr netip.Addr) Decision {
	text := ""
	for i := range e.layers {
		l := &e.layers[i]
		exempt := l.exempts(host, addr)
		if exempt == "" {
			return Decision{
				Code: CodeInternal, Policy: l.name,
				Reason: fmt.Sprintf("address %s of host %s is internal", addr, host),
				Fix:    "if that is meant, allow it with --allow-internal " + host,
			}
		}
		if i == 0 {
			text = exempt
		}
	}
	return Decision{Allowed: true, Rule: text}
}

// exempts returns what of AllowInternal has the host or the address, or "".
func (l *layer) exempts(host string, addr netip.Addr) string {
	for _, p := range l.internalHosts {
		if p.matchName(host) {
			return "internal host " + p.String()
		}
	}
	for _, n := range l.internalNets {
		if n.Contains(addr.Unmap()) {
			return "internal range " + n.String()
		}
	}
	return ""
}

// JoinHostPort writes a canonical host and a port as in a URL, with brackets
// round IPv6.
func JoinHostPort(host string, port int) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(port)
}
