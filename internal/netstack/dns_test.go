package netstack

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func ask(t *testing.T, n *Names, edit func(*dnsmessage.Message)) (dnsmessage.Message, DNSQuery) {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("a.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	edit(&m)
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	reply, query, err := n.answer(raw)
	if err != nil {
		t.Fatal(err)
	}
	var got dnsmessage.Message
	if err := got.Unpack(reply); err != nil {
		t.Fatal(err)
	}
	if got.ID != 7 || !got.Response {
		t.Errorf("header = %+v", got.Header)
	}
	return got, query
}

func setName(name string, typ dnsmessage.Type) func(*dnsmessage.Message) {
	return func(m *dnsmessage.Message) {
		m.Questions[0].Name, m.Questions[0].Type = dnsmessage.MustNewName(name), typ
	}
}

func TestAnswers(t *testing.T) {
	tests := []struct {
		name   string
		typ    dnsmessage.Type
		result string
		addr   string
	}{
		{"a.test.", dnsmessage.TypeA, "NOERROR", "198.18.0.1"},
		{"A.TEST.", dnsmessage.TypeA, "NOERROR", "198.18.0.1"},
		{"b.test.", dnsmessage.TypeA, "NOERROR", "198.18.0.2"},
		{"a.test.", dnsmessage.TypeAAAA, "NOERROR", ""},
		{"a.test.", dnsmessage.TypeTXT, "NOERROR", ""},
		{"a.test.", 65, "NOERROR", ""}, // HTTPS
		{"localhost.", dnsmessage.TypeA, "NOERROR", "127.0.0.1"},
		{"x.LocalHost.", dnsmessage.TypeA, "NOERROR", "127.0.0.1"},
		{"localhost.", dnsmessage.TypeAAAA, "NOERROR", ""},
		{"1.127.168.192.in-addr.arpa.", dnsmessage.TypePTR, "NXDOMAIN", ""},
		{"10.0.0.1.", dnsmessage.TypeA, "NXDOMAIN", ""},
		{".", dnsmessage.TypeA, "NXDOMAIN", ""},
		{"sp ace.test.", dnsmessage.TypeA, "NXDOMAIN", ""},
		{"\u212aelvin.test.", dnsmessage.TypeA, "NXDOMAIN", ""},
	}
	var n Names
	for _, tt := range tests {
		got, query := ask(t, &n, setName(tt.name, tt.typ))
		addr := ""
		for _, a := range got.Answers {
			if r, ok := a.Body.(*dnsmessage.AResource); ok {
				addr = netip.AddrFrom4(r.A).String()
			}
			if a.Header.TTL != nameTTL || a.Header.Name.String() != tt.name {
				t.Errorf("%s: answer header %+v", tt.name, a.Header)
			}
		}
		if query.Result != tt.result || addr != tt.addr || rcodeName(got.RCode) != tt.result {
			t.Errorf("%s %v: %s %q, want %s %q", tt.name, tt.typ, query.Result, addr, tt.result, tt.addr)
		}
	}
}

func TestOddQueries(t *testing.T) {
	var n Names
	question := dnsmessage.Question{Name: dnsmessage.MustNewName("b.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	opt := func(version uint32) dnsmessage.Resource {
		var h dnsmessage.ResourceHeader
		_ = h.SetEDNS0(4096, 0, true)
		h.TTL |= version << 16
		return dnsmessage.Resource{Header: h, Body: &dnsmessage.OPTResource{}}
	}
	for want, edit := range map[string]func(*dnsmessage.Message){
		"NOTIMP":  func(m *dnsmessage.Message) { m.OpCode = 5 },
		"FORMERR": func(m *dnsmessage.Message) { m.Questions = append(m.Questions, question) },
		"REFUSED": func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS },
		"NOERROR": func(m *dnsmessage.Message) { m.Additionals = append(m.Additionals, opt(0)) },
		"BADVERS": func(m *dnsmessage.Message) { m.Additionals = append(m.Additionals, opt(1)) },
	} {
		got, query := ask(t, &n, edit)
		if query.Result != want {
			t.Errorf("%s: got %s", want, query.Result)
		}
		if want == "NOERROR" && (len(got.Additionals) != 1 || len(got.Answers) != 1) {
			t.Errorf("EDNS: %+v", got)
		}
	}
	if _, query := ask(t, &n, func(m *dnsmessage.Message) { m.Questions = nil }); query.Result != "FORMERR" {
		t.Errorf("no question: %s", query.Result)
	}
	for _, raw := range []string{"", "short", "\x00\x01\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
		if _, _, err := n.answer([]byte(raw)); !errors.Is(err, errDropQuery) {
			t.Errorf("%q: %v", raw, err)
		}
	}
	loop := "\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"
	if _, query, err := n.answer([]byte(loop)); err != nil || query.Result != "FORMERR" {
		t.Errorf("compression loop: %+v, %v", query, err)
	}
}

func TestNamesAreUniqueStableAndBounded(t *testing.T) {
	var n Names
	seen := make(map[netip.Addr]string)
	for i := range maxNames {
		name := fmt.Sprintf("n%d.test", i)
		addr, err := n.address(name)
		if err != nil {
			t.Fatal(err)
		}
		last := addr.As4()[3]
		if other, dup := seen[addr]; dup || !Synthetic.Contains(addr) || last == 0 || last == 255 {
			t.Fatalf("%s got %s, as %s", name, addr, other)
		}
		seen[addr] = name
		if n.name(addr) != name {
			t.Fatalf("%s is for %q", addr, n.name(addr))
		}
	}
	if _, query := ask(t, &n, setName("one.more.test.", dnsmessage.TypeA)); query.Result != "SERVFAIL" || query.Addr.IsValid() {
		t.Errorf("beyond the table: %+v", query)
	}
	if addr, err := n.address("n5.test"); err != nil || seen[addr] != "n5.test" {
		t.Errorf("n5.test moved to %s, %v", addr, err)
	}
}

func FuzzDNS(f *testing.F) {
	for _, name := range []string{"a.test.", "localhost.", "x.arpa.", strings.Repeat("a.", 126) + "b."} {
		m := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
		raw, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte("\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		var n Names
		reply, query, err := n.answer(msg)
		if err != nil {
			return
		}
		var got dnsmessage.Message
		if err := got.Unpack(reply); err != nil {
			t.Fatalf("the reply cannot be read: %v", err)
		}
		if !got.Response || len(reply) > maxUDPAnswer || len(reply) > len(msg)+64 {
			t.Fatalf("reply of %d bytes to %d: %+v", len(reply), len(msg), got.Header)
		}
		if query.Addr.IsValid() && len(got.Answers) != 1 {
			t.Fatalf("no answer in the reply: %+v", got)
		}
	})
}
