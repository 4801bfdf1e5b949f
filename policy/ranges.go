package policy

import "net/netip"

// addressRange is one block of addresses that is not the public internet.
type addressRange struct {
	prefix netip.Prefix
	what   string
}

// internalV4 is the IANA IPv4 Special-Purpose Address Registry (RFC 6890 and
// its updates) and the multicast block. The few entries that are globally
// reachable (AS112, AMT) are infrastructure no sandbox needs, and stay in.
var internalV4 = []addressRange{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network, RFC 791"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private use, RFC 1918"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared address space, RFC 6598"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback, RFC 1122"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link local, RFC 3927"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private use, RFC 1918"},
	{netip.MustParsePrefix("192.0.0.0/24"), "IETF protocol assignments, RFC 6890"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation, RFC 5737"},
	{netip.MustParsePrefix("192.31.196.0/24"), "AS112, RFC 7535"},
	{netip.MustParsePrefix("192.52.193.0/24"), "AMT, RFC 7450"},
	{netip.MustParsePrefix("192.88.99.0/24"), "6to4 relay, RFC 7526"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private use, RFC 1918"},
	{netip.MustParsePrefix("192.175.48.0/24"), "AS112, RFC 7534"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking, RFC 2544"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation, RFC 5737"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation, RFC 5737"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast, RFC 5771"},
	{netip.MustParsePrefix("255.255.255.255/32"), "limited broadcast, RFC 8190"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved, RFC 1112"},
}

// internalV6 is the IANA IPv6 Special-Purpose Address Registry, the retired
// forms that still reach something, and last everything outside 2000::/3,
// the only block handed out for global unicast (RFC 4291 section 2.4).
var internalV6 = []addressRange{
	{netip.MustParsePrefix("::/128"), "unspecified, RFC 4291"},
	{netip.MustParsePrefix("::1/128"), "loopback, RFC 4291"},
	{netip.MustParsePrefix("::/96"), "IPv4-compatible, RFC 4291"},
	{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4-mapped, RFC 4291"},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), "IPv4-translated, RFC 2765"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local NAT64, RFC 8215"},
	{netip.MustParsePrefix("100::/64"), "discard only, RFC 6666"},
	{netip.MustParsePrefix("100:0:0:1::/64"), "dummy prefix, RFC 9780"},
	{netip.MustParsePrefix("2001::/32"), "Teredo, RFC 4380"},
	{netip.MustParsePrefix("2001:2::/48"), "benchmarking, RFC 5180"},
	{netip.MustParsePrefix("2001::/23"), "IETF protocol assignments, RFC 2928"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation, RFC 3849"},
	{netip.MustParsePrefix("2002::/16"), "6to4, RFC 3056"},
	{netip.MustParsePrefix("2620:4f:8000::/48"), "AS112, RFC 7534"},
	{netip.MustParsePrefix("3fff::/20"), "documentation, RFC 9637"},
	{netip.MustParsePrefix("5f00::/16"), "segment routing, RFC 9602"},
	{netip.MustParsePrefix("fc00::/7"), "unique local, RFC 4193"},
	{netip.MustParsePrefix("fe80::/10"), "link local, RFC 4291"},
	{netip.MustParsePrefix("fec0::/10"), "site local, RFC 3879"},
	{netip.MustParsePrefix("ff00::/8"), "multicast, RFC 4291"},
}

var (
	nat64         = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	globalUnicast = netip.MustParsePrefix("2000::/3")     // RFC 4291 section 2.4
)

// Internal reports whether addr is not an ordinary public address, and what it
// is instead ("private use, RFC 1918"). An IPv4 address carried inside an IPv6
// one (mapped, or NAT64's 64:ff9b::/96) is judged by the IPv4 address. An invalid
// address, or one with a zone, is internal.
func Internal(addr netip.Addr) (what string, internal bool) {
	if !addr.IsValid() {
		return "not an address", true
	}
	if addr.Zone() != "" {
		return "an address with a zone", true
	}
	addr = addr.Unmap()
	if nat64.Contains(addr) {
		b := addr.As16()
		what, internal = Internal(netip.AddrFrom4([4]byte(b[12:])))
		if internal {
			what = "NAT64 form of " + what
		}
		return what, internal
	}
	ranges := internalV6
	if addr.Is4() {
		ranges = internalV4
	}
	for _, r := range ranges {
		if r.prefix.Contains(addr) {
			return r.what, true
		}
	}
	if addr.Is6() && !globalUnicast.Contains(addr) {
		return "outside global unicast, RFC 4291", true
	}
	return "", false
}
