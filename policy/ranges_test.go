package policy_test

import (
	"net/netip"
	"testing"

	"gondolin/policy"
)

func TestInternal(t *testing.T) {
	for _, s := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.255", "169.254.169.254", "172.16.0.1", "172.31.255.255",
		"192.0.0.1", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.1.1", "192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1",
		"224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::808:808",
		"100::1", "100:0:0:1::1", "2001::1", "2001:1ff::1", "2001:2::1", "2001:db8::1", "2002:808:808::1", "2620:4f:8000::1", "3fff::1", "5f00::1", "fc00::1", "fd12::1",
		"fe80::1", "febf::1", "fec0::1", "ff02::1", "4000::1", "::2:0:0:1", "fe80::1%eth0",
	} {
		what, internal := policy.Internal(netip.MustParseAddr(s))
		if !internal || what == "" {
			t.Errorf("Internal(%s) = %q, %v", s, what, internal)
		}
	}
	for _, s := range []string{
		"1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.1.1.1", "128.0.0.1", "169.253.1.1", "172.15.0.1", "172.32.0.1", "192.0.1.1", "192.167.1.1",
		"198.17.255.255", "198.20.0.0", "223.255.255.255", "::ffff:8.8.8.8", "64:ff9b::808:808", "2606:4700::1111", "2001:200::1", "2001:4860:4860::8888", "2003::1",
	} {
		if what, internal := policy.Internal(netip.MustParseAddr(s)); internal {
			t.Errorf("Internal(%s) = %q", s, what)
		}
	}
	if _, internal := policy.Internal(netip.Addr{}); !internal {
		t.Error("the zero address is not internal")
	}
}

func TestAllowInternal(t *testing.T) {
	e := compile(t, policy.Network{AllowInternal: []string{"10.1.0.0/16", "db.corp", "*.lan", "192.168.7.7", "fd00::/8"}})
	tests := []struct {
		host, addr string
		want       bool
	}{
		{"x.test", "10.1.2.3", true},
		{"x.test", "10.2.2.3", false},
		{"db.corp", "10.2.2.3", true},
		{"nas.lan", "172.16.0.1", true},
		{"lan", "172.16.0.1", false},
		{"x.test", "192.168.7.7", true},
		{"x.test", "192.168.7.8", false},
		{"x.test", "::ffff:10.1.2.3", true},
		{"x.test", "fd01::1", true},
		{"x.test", "1.1.1.1", true},
	}
	for _, tt := range tests {
		if d := e.Address(tt.host, netip.MustParseAddr(tt.addr)); d.Allowed != tt.want {
			t.Errorf("Address(%s, %s) = %+v", tt.host, tt.addr, d)
		}
	}
	if d := e.Connect("db.corp", 443); d.Allowed {
		t.Error("AllowInternal allowed a host by itself")
	}
	for _, bad := range []string{"*", "10.0.0.0/33", "db:80", "::ffff:10.0.0.0/104", "http://x"} {
		if _, err := policy.Compile(policy.Network{AllowInternal: []string{bad}}); err == nil {
			t.Errorf("AllowInternal %q was accepted", bad)
		}
	}
}
