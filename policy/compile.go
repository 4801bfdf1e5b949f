package policy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

const (
	// maxRules bounds the rules of one Network: a decision takes time in their
	// number, and this many take as long as a packet does on the wire.
	maxRules = 10_000

	// maxLayers bounds the Networks that have to agree.
	maxLayers = 16
)

// layer is one compiled Network. All of an engine must allow a request.
type layer struct {
	name          string
	rules         []rule
	keys          []hostKey // of the rules' hosts, in the same order
	internalHosts []hostPattern
	internalNets  []netip.Prefix
}

// rule is a compiled Rule.
type rule struct {
	host    hostPattern
	deny    string
	ports   []int // none: all
	schemes []string
	methods []string
	paths   []string
	when    Condition
	text    string

	maxRequest, maxResponse int64
}

// Compile checks n and returns its engine. All faults are reported at once.
func Compile(n Network) (*Engine, error) {
	e := &Engine{}
	faults := e.addLayers(n)
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

// addLayers compiles n and what it is within, in this order.
func (e *Engine) addLayers(n Network) (faults []error) {
	if len(e.layers) == maxLayers {
		return []error{fmt.Errorf("cannot use more than %d policies within each other", maxLayers)}
	}
	l, faults := compileLayer(n)
	e.layers = append(e.layers, l)
	for _, w := range n.Within {
		if len(w.Secrets) > 0 {
			faults = append(faults, fmt.Errorf("cannot use policy %q: what others are within has no secrets", w.Name))
		}
		faults = append(faults, e.addLayers(w)...)
	}
	return faults
}

func compileLayer(n Network) (l layer, faults []error) {
	l.name = n.Name
	if count := len(n.Rules) + len(n.Allow); count > maxRules {
		return l, []error{fmt.Errorf("cannot use %d rules: the limit is %d", count, maxRules)}
	}
	for _, r := range n.Rules {
		c, err := compileRule(r)
		faults = append(faults, err)
		l.rules = append(l.rules, c)
	}
	for _, r := range n.Allow {
		c, err := compileRule(r)
		if err == nil && r.Deny != "" {
			err = fmt.Errorf("cannot use rule %q: one that denies belongs into Rules, not Allow", r.Host)
		}
		faults = append(faults, err)
		l.rules = append(l.rules, c)
	}
	for i := range l.rules {
		l.keys = append(l.keys, l.rules[i].host.key())
	}
	for _, text := range n.AllowInternal {
		faults = append(faults, l.addInternal(text))
	}
	return l, faults
}

func compileRule(r Rule) (rule, error) {
	c := rule{
		text: r.String(), deny: r.Deny, when: r.When, maxRequest: r.MaxRequest, maxResponse: r.MaxResponse,
		schemes: slices.Clone(r.Schemes), methods: slices.Clone(r.Methods), paths: slices.Clone(r.Paths),
	}
	var err error
	if c.host, err = parseRuleHost(r.Host); err != nil {
		return c, err
	}
	if c.ports, err = r.ports(c.host.port); err == nil {
		err = c.check()
	}
	if err != nil {
		return c, fmt.Errorf("cannot use rule %q: %w", r.Host, err)
	}
	return c, nil
}

// ports returns the ports of a rule, given the one in its Host.
func (r Rule) ports(inHost int) ([]int, error) {
	switch {
	case inHost != 0 && len(r.Ports) > 0:
		return nil, errors.New("ports are given twice, in Host and in Ports")
	case inHost != 0:
		return []int{inHost}, nil
	case len(r.Ports) > 0:
		return slices.Clone(r.Ports), nil
	case r.Deny != "":
		return nil, nil
	}
	return []int{80, 443}, nil
}

func (r *rule) check() error {
	for _, p := range r.ports {
		if p < 1 || p > 65535 {
			return fmt.Errorf("port %d is not from 1 to 65535", p)
		}
	}
	for _, s := range r.schemes {
		if s != "http" && s != "https" {
			return fmt.Errorf("scheme %q is neither http nor https", s)
		}
	}
	for _, m := range r.methods {
		if m == "" || strings.Trim(m, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" {
			return fmt.Errorf("%q is not a method in upper case", m)
		}
	}
	for _, p := range r.paths {
		if err := checkPathPattern(p); err != nil {
			return fmt.Errorf("path %q %w", p, err)
		}
	}
	switch {
	case r.maxRequest < 0 || r.maxResponse < 0:
		return errors.New("a bound on a body is negative")
	case r.deny != "" && (r.maxRequest > 0 || r.maxResponse > 0):
		return errors.New("it denies, so there is nothing to bound")
	}
	return nil
}

func (l *layer) addInternal(text string) error {
	if prefix, err := netip.ParsePrefix(text); err == nil {
		if prefix.Addr().Is4In6() {
			return fmt.Errorf("cannot allow internal range %q: write it as an IPv4 range", text)
		}
		l.internalNets = append(l.internalNets, prefix.Masked())
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
		l.internalNets = append(l.internalNets, p.addr)
	default:
		l.internalHosts = append(l.internalHosts, p)
	}
	return nil
}

// checkSecrets refuses a secret that could never be sent where it is bound, and
// two secrets one of which is part of the other, which could not be told apart.
func (e *Engine) checkSecrets() error {
	var faults []error
	for i, s := range e.secrets {
		for _, h := range s.hosts {
			if l := e.unreachable(h); l != nil {
				faults = append(faults, fmt.Errorf("cannot bind secret %s to %s: no rule%s allows that host and port over https", s.name, h, l.of()))
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

// unreachable returns the layer that never allows h, which has a port, over https.
func (e *Engine) unreachable(h hostPattern) *layer {
	for i := range e.layers {
		if !e.layers[i].reaches(h) {
			return &e.layers[i]
		}
	}
	return nil
}

// reaches reports whether some rule could allow h before one refuses all of it.
func (l *layer) reaches(h hostPattern) bool {
	for i := range l.rules {
		r := &l.rules[i]
		if r.hasPort(h.port) && (len(r.schemes) == 0 || slices.Contains(r.schemes, "https")) {
			if r.deny == "" && r.host.overlaps(h) {
				return true
			}
			if r.refusesAll() && r.host.covers(h) {
				return false
			}
		}
	}
	return false
}

// refusesAll reports whether r refuses every method and path of its hosts.
func (r *rule) refusesAll() bool {
	return r.deny != "" && len(r.methods) == 0 && len(r.paths) == 0 && r.when == nil
}

// of names the layer in an error.
func (l *layer) of() string {
	if l.name == "" {
		return ""
	}
	return " of " + l.name
}
