package policy

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Network is what a sandbox may reach. The zero value: nothing.
type Network struct {
	// Allow lists what may be reached. A request that no rule matches is
	// refused.
	Allow []Rule
	// Secrets are the values that may leave in the guest's requests, by the
	// name of the environment variable that holds the placeholder in the
	// guest. Every host a secret is bound to must be allowed by a rule.
	Secrets map[string]Secret
	// AllowInternal lists host patterns, addresses and CIDR ranges that are
	// exempt from the block on internal addresses. An entry allows nothing by
	// itself: the host must also match a rule. "*" is refused.
	AllowInternal []string
}

// Rule allows requests to a host.
type Rule struct {
	// Host is a host pattern (see the package documentation), optionally with
	// ":port".
	Host string
	// Ports are the ports allowed; none means 80 and 443, or the one in Host.
	Ports []int
	// Methods are the request methods allowed, in upper case; none means all.
	Methods []string
	// Paths are the paths allowed: "/exact", or "/below/*" for everything below
	// "/below/". None means all. A request whose path is written in an unusual
	// way (dot segments, empty segments, encoded slashes, dots or backslashes)
	// matches no rule that has Paths, since servers read such paths differently.
	Paths []string
}

// String names the rule in audit events.
func (r Rule) String() string {
	var b strings.Builder
	b.WriteString(r.Host)
	for _, part := range [][]string{portTexts(r.Ports), r.Methods, r.Paths} {
		if len(part) > 0 {
			b.WriteString(" " + strings.Join(part, ","))
		}
	}
	return b.String()
}

func portTexts(ports []int) []string {
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = strconv.Itoa(p)
	}
	return texts
}

// Request is what a rule is asked about. Host is canonical (CanonicalHost).
type Request struct {
	Scheme string // "http" or "https"
	Host   string
	Port   int
	Method string
	Path   string // as on the wire, without the query
}

// Decision is the answer to one question. The zero value refuses.
type Decision struct {
	Allowed bool
	// Rule is the text of the rule that allowed it; empty when refused.
	Rule string
	// Reason says why it was refused; empty when allowed.
	Reason string
}

// Engine answers questions about one Network. It is immutable and safe for
// concurrent use, holds secret values, and prints none of them.
type Engine struct {
	rules         []compiledRule
	secrets       []*boundSecret // by name
	internalHosts []hostPattern
	internalNets  []netip.Prefix
}

type compiledRule struct {
	text    string
	host    hostPattern
	ports   []int
	methods []string
	paths   []string
}

// Compile checks n and returns its engine. All faults are reported at once.
func Compile(n Network) (*Engine, error) {
	e := &Engine{}
	var faults []error
	for _, r := range n.Allow {
		c, err := compileRule(r)
		faults = append(faults, err)
		e.rules = append(e.rules, c)
	}
	for _, text := range n.AllowInternal {
		faults = append(faults, e.addInternal(text))
	}
	for name, s := range n.Secrets {
		b, err := compileSecret(name, s)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		e.secrets = append(e.secrets, b)
	}
	slices.SortFunc(e.secrets, func(a, b *boundSecret) int { return cmp.Compare(a.name, b.name) })
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if err := e.checkSecrets(); err != nil {
		return nil, err
	}
	return e, nil
}

func compileRule(r Rule) (compiledRule, error) {
	c := compiledRule{text: r.String(), methods: slices.Clone(r.Methods), paths: slices.Clone(r.Paths)}
	var err error
	if c.host, err = parsePattern(r.Host); err != nil {
		return c, err
	}
	switch {
	case c.host.port != 0 && len(r.Ports) > 0:
		return c, fmt.Errorf("cannot use rule %q: ports are given twice, in Host and in Ports", r.Host)
	case c.host.port != 0:
		c.ports = []int{c.host.port}
	case len(r.Ports) > 0:
		c.ports = slices.Clone(r.Ports)
	default:
		c.ports = []int{80, 443}
	}
	for _, p := range c.ports {
		if p < 1 || p > 65535 {
			return c, fmt.Errorf("cannot use rule %q: port %d is not from 1 to 65535", r.Host, p)
		}
	}
	for _, m := range c.methods {
		if m == "" || strings.Trim(m, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" {
			return c, fmt.Errorf("cannot use rule %q: %q is not a method in upper case", r.Host, m)
		}
	}
	for _, p := range c.paths {
		if err := checkPathPattern(p); err != nil {
			return c, fmt.Errorf("cannot use rule %q: path %q %w", r.Host, p, err)
		}
	}
	return c, nil
}

func (e *Engine) addInternal(text string) error {
	if prefix, err := netip.ParsePrefix(text); err == nil {
		if prefix.Addr().Is4In6() {
			return fmt.Errorf("cannot allow internal range %q: write it as an IPv4 range", text)
		}
		e.internalNets = append(e.internalNets, prefix.Masked())
		return nil
	}
	p, err := parsePattern(text)
	switch {
	case err != nil:
		return fmt.Errorf("cannot allow internal host or range: %w", err)
	case p.any:
		return errors.New(`cannot allow internal host "*": name the hosts or ranges`)
	case p.port != 0:
		return fmt.Errorf("cannot allow internal host %q: ports belong in a rule", text)
	case p.addr.IsValid():
		e.internalNets = append(e.internalNets, netip.PrefixFrom(p.addr, p.addr.BitLen()))
	default:
		e.internalHosts = append(e.internalHosts, p)
	}
	return nil
}

// checkSecrets refuses a secret that could never be sent where it is bound, and
// two secrets one of which is part of the other, which could not be told apart.
func (e *Engine) checkSecrets() error {
	var faults []error
	for i, s := range e.secrets {
		for _, h := range s.hosts {
			if !slices.ContainsFunc(e.rules, func(r compiledRule) bool {
				return r.host.overlaps(h) && slices.Contains(r.ports, h.port)
			}) {
				faults = append(faults, fmt.Errorf("cannot bind secret %s to %s: no rule allows that host and port", s.name, h))
			}
		}
		for _, t := range e.secrets[:i] {
			if a, b := s.value(), t.value(); a != b && (strings.Contains(a, b) || strings.Contains(b, a)) {
				faults = append(faults, fmt.Errorf("cannot use secrets %s and %s: the value of one contains the other", t.name, s.name))
			}
		}
	}
	return errors.Join(faults...)
}

// String writes the pattern back.
func (p hostPattern) String() string {
	host := p.name
	switch {
	case p.any:
		host = "*"
	case p.below:
		host = "*." + p.name
	case p.addr.Is6():
		host = "[" + p.addr.String() + "]"
	case p.addr.IsValid():
		host = p.addr.String()
	}
	if p.port != 0 {
		host += ":" + strconv.Itoa(p.port)
	}
	return host
}

// Connect decides whether any request at all could be allowed over a
// connection to host and port.
func (e *Engine) Connect(host string, port int) Decision {
	for i := range e.rules {
		if r := &e.rules[i]; slices.Contains(r.ports, port) && r.host.matchName(host) {
			return Decision{Allowed: true, Rule: r.text}
		}
	}
	return Decision{Reason: "no rule allows host " + JoinHostPort(host, port)}
}

// PortAllowed reports whether any rule names the port, for whatever host.
func (e *Engine) PortAllowed(port int) bool {
	return slices.ContainsFunc(e.rules, func(r compiledRule) bool { return slices.Contains(r.ports, port) })
}

// Request decides about one request.
func (e *Engine) Request(q Request) Decision {
	reached := ""
	for i := range e.rules {
		r := &e.rules[i]
		if !slices.Contains(r.ports, q.Port) || !r.host.matchName(q.Host) {
			continue
		}
		reached = r.text
		if len(r.methods) > 0 && !slices.Contains(r.methods, q.Method) {
			continue
		}
		if len(r.paths) > 0 && !matchPaths(r.paths, q.Path) {
			continue
		}
		return Decision{Allowed: true, Rule: r.text}
	}
	if reached != "" {
		return Decision{Reason: "rule " + strconv.Quote(reached) + " does not cover this method and path"}
	}
	return Decision{Reason: "no rule allows host " + JoinHostPort(q.Host, q.Port)}
}

// Address decides whether host, already allowed by a rule, may be reached at
// addr.
func (e *Engine) Address(host string, addr netip.Addr) Decision {
	what, internal := Internal(addr)
	if !internal {
		return Decision{Allowed: true, Rule: "public address"}
	}
	if d := e.ExemptInternal(host, addr); d.Allowed {
		return d
	}
	return Decision{Reason: fmt.Sprintf("address %s of host %s is internal (%s)", addr, host, what)}
}

// ExemptInternal decides whether AllowInternal names the host or the address.
// Callers use it for addresses they know to be internal, such as the host's own.
func (e *Engine) ExemptInternal(host string, addr netip.Addr) Decision {
	for _, p := range e.internalHosts {
		if p.matchName(host) {
			return Decision{Allowed: true, Rule: "internal host " + p.String()}
		}
	}
	for _, n := range e.internalNets {
		if n.Contains(addr.Unmap()) {
			return Decision{Allowed: true, Rule: "internal range " + n.String()}
		}
	}
	return Decision{Reason: fmt.Sprintf("address %s of host %s is internal", addr, host)}
}

// SecretNames returns the names of all secrets, sorted.
func (e *Engine) SecretNames() []string {
	names := make([]string, len(e.secrets))
	for i, s := range e.secrets {
		names[i] = s.name
	}
	return names
}

// SecretValue returns the real value of a secret. Keep it out of anything that
// can be printed.
func (e *Engine) SecretValue(name string) (string, bool) {
	if s := e.secret(name); s != nil {
		return s.value(), true
	}
	return "", false
}

// Secret decides whether the named secret may be part of a request with this
// scheme, host and port.
func (e *Engine) Secret(name string, q Request) Decision {
	s := e.secret(name)
	switch {
	case s == nil:
		return Decision{Reason: "there is no secret " + name}
	case q.Scheme != "https":
		return Decision{Reason: "secret " + name + " may be sent only over https"}
	case !s.boundTo(q.Host, q.Port):
		return Decision{Reason: "secret " + name + " is not bound to host " + JoinHostPort(q.Host, q.Port)}
	}
	return Decision{Allowed: true, Rule: "secret " + name}
}

func (e *Engine) secret(name string) *boundSecret {
	for _, s := range e.secrets {
		if s.name == name {
			return s
		}
	}
	return nil
}

// Format implements fmt.Formatter, so that no verb prints a secret's value.
func (e *Engine) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, fmt.Sprintf("policy of %d rules and %d secrets", len(e.rules), len(e.secrets))) // fmt.State keeps its own errors
}

// JoinHostPort writes a canonical host and a port as in a URL, with brackets
// round IPv6.
func JoinHostPort(host string, port int) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(port)
}
