package gondolin

import (
	"bytes"
	"crypto/sha1" // OpenSSL names files by it; nothing is secured by it
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"gondolin/internal/wire"
)

// certificate describes a CA to the guest.
func certificate(certPEM []byte) (*wire.CA, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return nil, errors.New("cannot read the gateway's CA: not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("cannot read the gateway's CA: %w", err)
	}
	hash, err := subjectHash(cert.RawSubject)
	if err != nil {
		return nil, fmt.Errorf("cannot read the gateway's CA: %w", err)
	}
	return &wire.CA{PEM: certPEM, Hash: hash}, nil
}

// attribute is one AttributeTypeAndValue of a name (RFC 5280, section 4.1.2.4).
type attribute struct {
	Type  asn1.ObjectIdentifier
	Value string `asn1:"utf8"`
}

// subjectHash is OpenSSL's X509_NAME_hash: the first four bytes, little endian,
// of the SHA-1 of the name in canonical form, in which every string is UTF-8, in
// lower case, with runs of spaces made one and none at the ends, and the outer
// SEQUENCE has no header. It assumes ASCII strings, as the gateway's CA has.
func subjectHash(rawName []byte) (string, error) {
	var name []asn1.RawValue
	if _, err := asn1.Unmarshal(rawName, &name); err != nil {
		return "", err
	}
	var canonical bytes.Buffer
	for _, rdn := range name {
		var set []attribute
		if _, err := asn1.UnmarshalWithParams(rdn.FullBytes, &set, "set"); err != nil {
			return "", err
		}
		for i := range set {
			set[i].Value = strings.ToLower(strings.Join(strings.Fields(set[i].Value), " "))
		}
		der, err := asn1.MarshalWithParams(set, "set")
		if err != nil {
			return "", err
		}
		canonical.Write(der)
	}
	sum := sha1.Sum(canonical.Bytes())
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(sum[:4])), nil
}
