package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Finding is something in a Network that cannot be meant.
type Finding struct {
	// Rule is the index of the rule in Rules, and from len(Rules) on in Allow.
	Rule int
	// Problem says what is wrong, and what to do.
	Problem string
}

// Check finds rules that can never decide anything, which Compile accepts: those
// that an earlier rule leaves nothing to decide, and those for hosts that cannot be
// reached. It looks at n alone, not at what it is within.
func Check(n Network) ([]Finding, error) {
	e, err := Compile(n)
	if err != nil {
		return nil, err
	}
	l := &e.layers[0]
	var findings []Finding
	add := func(i int, format string, args ...any) {
		findings = append(findings, Finding{Rule: i, Problem: fmt.Sprintf(format, args...)})
	}
	for i := range l.rules {
		r := &l.rules[i]
		if by := slices.IndexFunc(l.rules[:i], func(earlier rule) bool { return earlier.shadows(r) }); by >= 0 {
			add(i, "it never decides: rule %d, %q, decides all it could match; move it before that one, or remove it", by+1, l.rules[by].text)
			continue
		}
		if r.deny != "" {
			continue
		}
		if why := l.unreachableHost(r.host); why != "" {
			add(i, "it allows nothing: %s", why)
		}
	}
	return findings, nil
}

// shadows reports whether every request that q matches, r, which comes earlier,
// matches too. Where in doubt, it does not.
func (r *rule) shadows(q *rule) bool {
	return r.when == nil && r.host.covers(q.host) && coversList(r.ports, q.ports) && coversList(r.schemes, q.schemes) &&
		coversList(r.methods, q.methods) && r.coversPaths(q)
}

// coversList compares two lists of which an empty one means all.
func coversList[T comparable](outer, inner []T) bool {
	if len(outer) == 0 {
		return true
	}
	for _, v := range inner {
		if !slices.Contains(outer, v) {
			return false
		}
	}
	return len(inner) > 0
}

func (r *rule) coversPaths(q *rule) bool {
	if len(r.paths) == 0 {
		return true
	}
	if len(q.paths) == 0 || q.deny != "" && r.deny == "" { // one that denies matches unusual paths too
		return false
	}
	for _, p := range q.paths {
		if !slices.ContainsFunc(r.paths, func(outer string) bool { return coversPath(outer, p) }) {
			return false
		}
	}
	return true
}

// coversPath reports whether every path that inner matches, outer matches too.
func coversPath(outer, inner string) bool {
	for {
		if outer == "/*" {
			return true
		}
		if inner == "/*" {
			return false
		}
		o, outerRest := cutSegment(outer)
		i, innerRest := cutSegment(inner)
		if o != i && (o != "*" || i == "") {
			return false
		}
		if outerRest == "" || innerRest == "" {
			return outerRest == innerRest
		}
		outer, inner = outerRest, innerRest
	}
}

// unresolvable are names that the guest's name server answers with "no such host".
var unresolvable = []string{"arpa", "invalid", "onion"}

// unreachableHost says why no request to h can succeed, or "".
func (l *layer) unreachableHost(h hostPattern) string {
	if h.addr.IsValid() {
		if h.addr.IsSingleIP() {
			if what, internal := Internal(h.addr.Addr()); internal && l.exempts("", h.addr.Addr()) == "" {
				return fmt.Sprintf("%s is internal (%s), and not exempted by allow_internal", h, what)
			}
		}
		return ""
	}
	for _, suffix := range unresolvable {
		if h.name == suffix || strings.HasSuffix(h.name, "."+suffix) {
			return fmt.Sprintf("names that end in %q do not exist for the guest", suffix)
		}
	}
	return ""
}

// Meet returns the pattern for the hosts and ports that both a and b match, as
// texts of host patterns, and false if there are none. defaultPort stands for a
// port that is not given.
func Meet(a, b string, defaultPort int) (string, bool, error) {
	p, err := parsePattern(a)
	if err != nil {
		return "", false, err
	}
	q, err := parsePattern(b)
	if err != nil {
		return "", false, err
	}
	for _, h := range []*hostPattern{&p, &q} {
		if h.port == 0 {
			h.port = defaultPort
		}
	}
	switch {
	case p.port != q.port:
		return "", false, nil
	case p.covers(q):
		return q.String(), true, nil
	case q.covers(p):
		return p.String(), true, nil
	}
	return "", false, nil
}
