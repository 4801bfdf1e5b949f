package policy

import (
	"strconv"
	"strings"
)

// Network is what a sandbox may reach. The zero value: nothing.
type Network struct {
	// Name says in refusals whose policy it is, where there are several.
	Name string
	// Rules are asked in order: the first one that matches a request decides. A
	// request that none matches is refused.
	Rules []Rule
	// Allow lists further rules, asked after Rules. None of them may refuse.
	Allow []Rule
	// Secrets are the values that may leave in the guest's requests, by the
	// name of the environment variable that holds the placeholder in the
	// guest. Every host a secret is bound to must be allowed by a rule.
	Secrets map[string]Secret
	// AllowInternal lists host patterns, addresses and CIDR ranges that are
	// exempt from the block on internal addresses. An entry allows nothing by
	// itself: the host must also match a rule. "*" is refused.
	AllowInternal []string
	// Within are policies inside whose bounds this one holds: each of them must
	// allow a request too, and exempt an address, and the smallest limits count. So
	// this policy can only be narrower than they are. They have no secrets.
	Within []Network
}

// Rule decides about requests to a host: it allows them, or with Deny refuses
// them. It matches a request that every one of its fields matches.
type Rule struct {
	// Name is what refusals and audit events call the rule. Empty: its text.
	Name string
	// Host is a host pattern (see the package documentation), optionally with
	// ":port", or a CIDR range, which matches the addresses in it where the guest
	// names no host but an address.
	Host string
	// Ports are the ports; none means 80 and 443, or the one in Host, and all if
	// the rule refuses.
	Ports []int
	// Schemes are "http" and "https"; none means both.
	Schemes []string
	// Methods are the request methods, in upper case; none means all.
	Methods []string
	// Paths are patterns of the path: "/exact", a segment "*" for any one segment,
	// and a final "/*" for everything below. None means all. A request whose path is
	// written in an unusual way (dot segments, empty segments, encoded slashes, dots
	// or backslashes) matches no rule that allows and has Paths, and every one that
	// refuses and has Paths, since servers read such paths differently. A rule that
	// refuses compares without regard to case and to needless encoding.
	Paths []string
	// When is a further condition. Nil: none. If it cannot be evaluated, a rule that
	// allows does not match, and one that refuses does.
	When Condition
	// MaxRequest and MaxResponse bound the bodies of one request that the rule
	// allows, in bytes. 0: no bound.
	MaxRequest, MaxResponse int64
	// Deny makes the rule refuse what it matches, and says why.
	Deny string
}

// Condition is a rule's When. Package policy/cel has the usual one.
type Condition interface {
	// Holds decides about one request, and must always decide the same way. Its
	// error says why it cannot.
	Holds(q Request) (bool, error)
	// String returns the condition's text.
	String() string
}

// Request is what a rule is asked about. Host is canonical (CanonicalHost).
type Request struct {
	Scheme string // "http" or "https"
	Host   string
	Port   int
	Method string
	Path   string // as on the wire, without the query
	Query  string // as on the wire, without the "?"; only conditions look at it
}

// Code says in one word why something was refused.
type Code string

// The codes of the decisions made here.
const (
	CodeNoRule    Code = "no_rule"   // no rule has this host and port
	CodeScheme    Code = "scheme"    // a rule has host and port, and another scheme
	CodeMethod    Code = "method"    // … and another method
	CodePath      Code = "path"      // … and another path
	CodeCondition Code = "condition" // … and its condition does not hold
	CodeDenied    Code = "denied"    // a rule refuses it
	CodeInternal  Code = "internal"  // the address is internal
	CodeSecret    Code = "secret"    // a secret may not go there
)

// Decision is the answer to one question. The zero value refuses.
type Decision struct {
	Allowed bool
	// Rule names the rule that decided. If none did, the one that came nearest.
	Rule string
	// Reason says why it was refused; empty when allowed.
	Reason string
	// Code is why it was refused, for programs; empty when allowed.
	Code Code
	// Fix says what would allow it; empty when allowed, or if nothing would.
	Fix string
	// Policy is the Name of the Network that refused.
	Policy string
	// MaxRequest and MaxResponse bound the bodies of an allowed request, in bytes.
	// 0: no bound.
	MaxRequest, MaxResponse int64
}

// String names the rule in decisions and audit events: its Name, or all its fields.
func (r Rule) String() string {
	if r.Name != "" {
		return r.Name
	}
	var b strings.Builder
	if r.Deny != "" {
		b.WriteString("deny ")
	}
	b.WriteString(r.Host)
	for _, part := range [][]string{portTexts(r.Ports), r.Schemes, r.Methods, r.Paths} {
		if len(part) > 0 {
			b.WriteString(" " + strings.Join(part, ","))
		}
	}
	if r.When != nil {
		b.WriteString(" when " + r.When.String())
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
