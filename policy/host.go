package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// maxName and maxLabel are the limits of RFC 1035 section 2.3.4, in bytes of
// the dotted form without its trailing dot.
const (
	maxName  = 253
	maxLabel = 63
)

// hostPattern is a parsed pattern. Exactly one of addr, name and any is set,
// or name together with below.
type hostPattern struct {
	name  string       // canonical name; with below, the suffix
	below bool         // names below name match, name itself does not
	any   bool         // every name
	addr  netip.Prefix // valid: the literals in it
	port  int          // 0: the pattern gives no port
}

// CanonicalHost returns the one spelling of a host that policy compares: lower
// case, without its trailing dot, addresses in their shortest form and without
// brackets, IPv4-mapped IPv6 as IPv4. It accepts the ASCII form only, and refuses
// names that some resolvers read as an address (a last label of digits or 0x…).
func CanonicalHost(host string) (string, error) {
	if addr, ok := parseAddr(host); ok {
		return addr.String(), nil
	}
	name := strings.TrimSuffix(host, ".")
	if len(name) > maxName {
		return "", fmt.Errorf("cannot use a host name of %d bytes: the limit is %d", len(name), maxName)
	}
	name = lowerASCII(name)
	if err := checkName(name); err != nil {
		return "", fmt.Errorf("cannot use host %q: %w", host, err)
	}
	return name, nil
}

func parseAddr(host string) (netip.Addr, bool) {
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
		if !strings.Contains(host, ":") {
			return netip.Addr{}, false
		}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, false
	}
	return addr.Unmap(), true
}

func checkName(name string) error {
	if name == "" {
		return errors.New("it is empty")
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if label == "" {
			return errors.New("it has an empty label")
		}
		if len(label) > maxLabel {
			return fmt.Errorf("a label is longer than %d bytes", maxLabel)
		}
		for i := range len(label) {
			if !nameByte(label[i]) {
				return fmt.Errorf("character %q is not allowed in a host name", label[i])
			}
		}
		last = label
	}
	if numeric(last) {
		return errors.New("its last label is a number, so it could be read as an address")
	}
	return nil
}

// nameByte also admits "_": it is no host name character, yet in wide use.
func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// numeric is the "ends in a number" test of the URL standard: such names are
// IPv4 addresses to inet_aton.
func numeric(label string) bool {
	if rest, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(rest, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// parsePattern reads one host pattern. Its errors name the pattern.
func parsePattern(s string) (hostPattern, error) {
	p, err := readPattern(s)
	if err != nil {
		return hostPattern{}, fmt.Errorf("cannot use host pattern %q: %w", s, err)
	}
	return p, nil
}

// parseRuleHost reads what a rule may have as Host: a pattern or a CIDR range.
func parseRuleHost(s string) (hostPattern, error) {
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return parsePattern(s)
	}
	if masked := prefix.Masked(); masked != prefix {
		return hostPattern{}, fmt.Errorf("cannot use range %q: it begins at %s; write that, or give an address without /", s, masked)
	}
	if prefix.Addr().Is4In6() {
		return hostPattern{}, fmt.Errorf("cannot use range %q: write it as an IPv4 range", s)
	}
	return hostPattern{addr: prefix}, nil
}

func single(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

func readPattern(s string) (hostPattern, error) {
	switch {
	case s == "":
		return hostPattern{}, errors.New("it is empty")
	case strings.Contains(s, "://"):
		return hostPattern{}, errors.New("give the host alone, without a scheme")
	case strings.ContainsAny(s, "/?#"):
		return hostPattern{}, errors.New("give the host alone, without a path (Rule.Paths has those)")
	case strings.Contains(s, "@"):
		return hostPattern{}, errors.New("give the host alone, without a user name")
	}
	if addr, ok := parseAddr(s); ok { // before ":port": 2001:db8::1 is all address
		return hostPattern{addr: single(addr)}, nil
	}
	host, port, err := splitPort(s)
	if err != nil {
		return hostPattern{}, err
	}
	if addr, ok := parseAddr(host); ok {
		return hostPattern{addr: single(addr), port: port}, nil
	}
	if host == "*" {
		return hostPattern{any: true, port: port}, nil
	}
	name, below := strings.CutPrefix(host, "*.")
	if strings.Contains(name, "*") {
		return hostPattern{}, errors.New(`"*" may stand only alone or as the whole first label`)
	}
	name, err = asciiName(name)
	if err != nil {
		return hostPattern{}, err
	}
	return hostPattern{name: name, below: below, port: port}, nil
}

func asciiName(name string) (string, error) {
	name = strings.TrimSuffix(name, ".")
	if strings.IndexFunc(name, func(r rune) bool { return r >= 0x80 }) >= 0 {
		ascii, err := idna.Lookup.ToASCII(name)
		if err != nil {
			return "", fmt.Errorf("it is no valid international name: %w", err)
		}
		name = ascii
	}
	if len(name) > maxName {
		return "", fmt.Errorf("it is longer than %d bytes", maxName)
	}
	name = lowerASCII(name)
	return name, checkName(name)
}

// lowerASCII leaves other characters alone: strings.ToLower makes an ASCII "k"
// of the Kelvin sign.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func splitPort(s string) (host string, port int, err error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.HasSuffix(s, "]") {
		return s, 0, nil
	}
	digits := s[i+1:]
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || n == 0 || digits[0] == '0' || digits[0] == '+' {
		return "", 0, fmt.Errorf("port %q is not a number from 1 to 65535", digits)
	}
	return s[:i], int(n), nil
}

// matchName reports whether p matches a canonical host (see CanonicalHost).
func (p *hostPattern) matchName(host string) bool { return p.matchSubject(host, literal(host)) }

// matchSubject is matchName for a host whose address is known, or that has none.
func (p *hostPattern) matchSubject(host string, addr netip.Addr) bool {
	switch {
	case p.addr.IsValid():
		return p.addr.Contains(addr)
	case addr.IsValid():
		return false // an address matches only a literal
	case p.any:
		return true
	case p.below:
		return len(host) > len(p.name)+1 && host[len(host)-len(p.name)-1] == '.' && host[len(host)-len(p.name):] == p.name
	default:
		return host == p.name
	}
}

// covers reports whether every host that q matches, p matches too, ports aside.
func (p *hostPattern) covers(q hostPattern) bool {
	switch {
	case p.addr.IsValid() || q.addr.IsValid():
		return p.addr.IsValid() && q.addr.IsValid() && p.addr.Bits() <= q.addr.Bits() && p.addr.Contains(q.addr.Addr())
	case p.any:
		return true
	case q.any:
		return false
	case q.below:
		return p.below && (p.name == q.name || p.matchName(q.name))
	default:
		return p.matchName(q.name)
	}
}

// overlaps reports whether some host matches both patterns, ports aside. Of two
// that overlap one covers the other.
func (p *hostPattern) overlaps(q hostPattern) bool { return p.covers(q) || q.covers(*p) }

// String writes the pattern back.
func (p hostPattern) String() string {
	host := p.name
	switch {
	case p.any:
		host = "*"
	case p.below:
		host = "*." + p.name
	case p.addr.IsValid() && !p.addr.IsSingleIP():
		host = p.addr.String()
	case p.addr.Addr().Is6():
		host = "[" + p.addr.Addr().String() + "]"
	case p.addr.IsValid():
		host = p.addr.Addr().String()
	}
	if p.port != 0 {
		host += ":" + strconv.Itoa(p.port)
	}
	return host
}
