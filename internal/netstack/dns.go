package netstack

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// DNSQuery is one question of the guest and what became of it.
type DNSQuery struct {
	Name   string     // lower case, without the final dot; guest-controlled text
	Type   string     // "A", "AAAA", …
	Addr   netip.Addr // the answer, if one was given
	Result string     // "NOERROR", "NXDOMAIN", "SERVFAIL", …
}

// dnsHeader is the size of the fixed header, RFC 1035 section 4.1.1.
const dnsHeader = 12

// badVersion is the extended RCODE of RFC 6891 section 9, 12 bits.
const badVersion = dnsmessage.RCode(16)

var errDropQuery = errors.New("cannot answer: not a query")

// question is a parsed query.
type question struct {
	header  dnsmessage.Header
	q       dnsmessage.Question
	edns    bool
	version byte
}

// answer returns the reply to one message of the guest. An error means that
// none is due: the message has no complete header or is itself a reply.
func (n *Names) answer(msg []byte) ([]byte, DNSQuery, error) {
	if len(msg) < dnsHeader || msg[2]&0x80 != 0 {
		return nil, DNSQuery{}, errDropQuery
	}
	q, rcode := parseQuery(msg)
	log := DNSQuery{Type: typeName(q.q.Type), Name: canonicalName(q.q.Name)}
	if rcode == dnsmessage.RCodeSuccess {
		log.Addr, rcode = n.resolve(log.Name, q.q)
	}
	log.Result = rcodeName(rcode)
	reply, err := buildReply(q, rcode, log.Addr)
	return reply, log, err
}

// canonicalName lowers ASCII letters only, and keeps every other byte.
func canonicalName(name dnsmessage.Name) string {
	b := []byte(strings.TrimSuffix(name.String(), "."))
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// parseQuery reads a query. With a code other than success the question may
// be missing.
func parseQuery(msg []byte) (question, dnsmessage.RCode) {
	var p dnsmessage.Parser
	header, err := p.Start(msg)
	q := question{header: header}
	if err != nil {
		return q, dnsmessage.RCodeFormatError
	}
	if header.OpCode != 0 {
		return q, dnsmessage.RCodeNotImplemented
	}
	const oneQuestionNoRecords = "\x00\x01\x00\x00\x00\x00"
	if string(msg[4:10]) != oneQuestionNoRecords {
		return q, dnsmessage.RCodeFormatError
	}
	first, err := p.Question()
	if err != nil || p.SkipAllQuestions() != nil || p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return q, dnsmessage.RCodeFormatError
	}
	// A compression pointer has nothing to point at in the first name.
	if first.Name.Length > 1 && msg[dnsHeader] >= 0xc0 {
		return q, dnsmessage.RCodeFormatError
	}
	q.q = first
	return q, q.parseAdditional(&p)
}

// parseAdditional looks for EDNS, RFC 6891; other records are ignored.
func (q *question) parseAdditional(p *dnsmessage.Parser) dnsmessage.RCode {
	for {
		h, err := p.AdditionalHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil || h.Type == dnsmessage.TypeOPT && q.edns || p.SkipAdditional() != nil {
			return dnsmessage.RCodeFormatError
		}
		if h.Type == dnsmessage.TypeOPT {
			q.edns, q.version = true, byte(h.TTL>>16) //nolint:gosec // G115: the version is this byte, RFC 6891 section 6.1.3
		}
	}
	if q.version != 0 {
		return badVersion
	}
	return dnsmessage.RCodeSuccess
}

// resolve decides what a question gets. name is its canonical form.
func (n *Names) resolve(name string, q dnsmessage.Question) (netip.Addr, dnsmessage.RCode) {
	if q.Class != dnsmessage.ClassINET {
		return netip.Addr{}, dnsmessage.RCodeRefused
	}
	if name == "localhost" || strings.HasSuffix(name, ".localhost") { // RFC 6761 section 6.3
		if q.Type == dnsmessage.TypeA {
			return netip.AddrFrom4([4]byte{127, 0, 0, 1}), dnsmessage.RCodeSuccess
		}
		return netip.Addr{}, dnsmessage.RCodeSuccess
	}
	if !hostName(name) {
		return netip.Addr{}, dnsmessage.RCodeNameError
	}
	if q.Type != dnsmessage.TypeA {
		return netip.Addr{}, dnsmessage.RCodeSuccess
	}
	addr, err := n.address(name)
	if err != nil {
		return netip.Addr{}, dnsmessage.RCodeServerFailure
	}
	return addr, dnsmessage.RCodeSuccess
}

// hostName reports whether a name can be a host: the usual characters, not an
// address in disguise, and not a reverse or reserved name (RFC 6761, RFC 7686).
func hostName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	switch last {
	case "arpa", "invalid", "onion":
		return false
	}
	return strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}

func buildReply(q question, rcode dnsmessage.RCode, addr netip.Addr) ([]byte, error) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: q.header.ID, Response: true, OpCode: q.header.OpCode,
		RecursionDesired: q.header.RecursionDesired, RecursionAvailable: true, RCode: rcode & 0xf,
	})
	b.EnableCompression()
	var faults []error
	if q.q.Name.Length > 0 {
		faults = append(faults, b.StartQuestions(), b.Question(q.q))
	}
	if addr.IsValid() {
		h := dnsmessage.ResourceHeader{Name: q.q.Name, Class: dnsmessage.ClassINET, TTL: nameTTL}
		faults = append(faults, b.StartAnswers(), b.AResource(h, dnsmessage.AResource{A: addr.As4()}))
	}
	if q.edns {
		var h dnsmessage.ResourceHeader
		faults = append(faults, h.SetEDNS0(maxUDPAnswer, rcode, false), b.StartAdditionals(), b.OPTResource(h, dnsmessage.OPTResource{}))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return b.Finish()
}

func typeName(t dnsmessage.Type) string { return strings.TrimPrefix(t.String(), "Type") }

func rcodeName(c dnsmessage.RCode) string {
	switch c {
	case dnsmessage.RCodeSuccess:
		return "NOERROR"
	case dnsmessage.RCodeFormatError:
		return "FORMERR"
	case dnsmessage.RCodeServerFailure:
		return "SERVFAIL"
	case dnsmessage.RCodeNameError:
		return "NXDOMAIN"
	case dnsmessage.RCodeNotImplemented:
		return "NOTIMP"
	case dnsmessage.RCodeRefused:
		return "REFUSED"
	case badVersion:
		return "BADVERS"
	default:
		return c.String()
	}
}

// frameTCP puts the length before a message, RFC 1035 section 4.2.2.
func frameTCP(msg []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...) //nolint:gosec // G115: replies are below 1 KiB
}
