package policy

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// redacted stands for a secret's value wherever a secret is printed.
const redacted = "[redacted]"

// minSecret is the shortest value in bytes that can be a secret. Values are
// searched for in traffic: a shorter one would be found everywhere.
const minSecret = 8

// maxSecret bounds a value in bytes: it has to fit into a request head of 64 KiB
// beside others, and doubles when encoded.
const maxSecret = 16 << 10

// Secret is a value the guest may use without having it. The guest holds a
// placeholder; the value replaces it on the wire, only in header values, only over
// https, and only towards Hosts. It prints as its hosts and "[redacted]" with every
// verb, logger and encoder of the standard library.
type Secret struct {
	// Hosts are the host patterns that may receive the value, on port 443
	// unless a pattern ends in ":port". "*" is refused.
	Hosts []string
	// Value is the real value: 8 bytes to 16 KiB, without control characters.
	Value string
}

// String implements fmt.Stringer without the value.
func (s Secret) String() string {
	return "secret for " + strings.Join(s.Hosts, ",") + " " + redacted
}

// GoString implements fmt.GoStringer without the value.
func (s Secret) GoString() string {
	return fmt.Sprintf("policy.Secret{Hosts: %#v, Value: %q}", s.Hosts, redacted)
}

// Format implements fmt.Formatter, so that no verb reaches the value.
func (s Secret) Format(f fmt.State, verb rune) {
	text := s.String()
	if verb == 'v' && f.Flag('#') {
		text = s.GoString()
	}
	_, _ = io.WriteString(f, text) // fmt.State keeps its own errors
}

// LogValue implements slog.LogValuer without the value.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements encoding.TextMarshaler without the value; JSON and
// every other text encoder use it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// GobEncode implements gob.GobEncoder, which would not use MarshalText.
func (s Secret) GobEncode() ([]byte, error) { return s.MarshalText() }

// boundSecret is a compiled Secret. The value is behind a function because fmt
// reads unexported fields, and pointers under an ill-fitting verb, without asking
// their methods; of a function it prints the address alone.
type boundSecret struct {
	name  string
	value func() string
	hosts []hostPattern // port always set
}

func compileSecret(name string, s Secret) (*boundSecret, error) {
	if err := checkEnvName(name); err != nil {
		return nil, fmt.Errorf("cannot use secret name %q: %w", name, err)
	}
	if err := checkSecretValue(s.Value); err != nil {
		return nil, fmt.Errorf("cannot use the value of secret %s: %w", name, err)
	}
	if len(s.Hosts) == 0 {
		return nil, fmt.Errorf("cannot use secret %s: it names no host that may receive it", name)
	}
	b := &boundSecret{name: name, value: func() string { return s.Value }}
	for _, text := range s.Hosts {
		p, err := parsePattern(text)
		if err != nil {
			return nil, fmt.Errorf("cannot bind secret %s: %w", name, err)
		}
		if p.any {
			return nil, fmt.Errorf("cannot bind secret %s to %q: name the hosts that may receive it", name, text)
		}
		if p.port == 0 {
			p.port = 443
		}
		b.hosts = append(b.hosts, p)
	}
	return b, nil
}

func (b *boundSecret) boundTo(host string, port int) bool {
	for _, p := range b.hosts {
		if p.port == port && p.matchName(host) {
			return true
		}
	}
	return false
}

// checkEnvName checks the POSIX form of an environment variable's name.
func checkEnvName(name string) error {
	if name == "" || len(name) > 128 {
		return errors.New("it must have 1 to 128 characters")
	}
	for i := range len(name) {
		c := name[i]
		letter := 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return errors.New("it must be a variable name: letters, digits and _, not starting with a digit")
		}
	}
	return nil
}

func checkSecretValue(v string) error {
	switch {
	case v == "":
		return errors.New("it is empty")
	case len(v) < minSecret:
		return fmt.Errorf("it is shorter than %d bytes, which would be found in ordinary traffic", minSecret)
	case len(v) > maxSecret:
		return fmt.Errorf("it is longer than %d bytes", maxSecret)
	case strings.IndexFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) >= 0:
		return errors.New("it has a line break or another control character, which no header can carry")
	case strings.TrimSpace(v) != v:
		return errors.New("it begins or ends with white space")
	}
	return nil
}
