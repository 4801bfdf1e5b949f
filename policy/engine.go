package policy

import (
	"fmt"
	"io"
)

// Engine answers questions about one Network. It is immutable and safe for
// concurrent use, holds secret values, and prints none of them.
type Engine struct {
	layers  []layer        // the Network's own first
	secrets []*boundSecret // by name
}

// SecretNames returns the names of all secrets, sorted.
func (e *Engine) SecretNames() []string {
	names := make([]string, len(e.secrets))
	for i, s := range e.secrets {
		names[i] = s.name
	}
	return names
}

// SecretValue returns the real value of a secret. Keep it out of anything that
// can be printed.
func (e *Engine) SecretValue(name string) (string, bool) {
	if s := e.secret(name); s != nil {
		return s.value(), true
	}
	return "", false
}

// Secret decides whether the named secret may be part of a request with this
// scheme, host and port.
func (e *Engine) Secret(name string, q Request) Decision {
	s := e.secret(name)
	d := Decision{Code: CodeSecret}
	switch {
	case s == nil:
		d.Reason = "there is no secret " + name
	case q.Scheme != "https":
		d.Reason = "secret " + name + " may be sent only over https"
	case !s.boundTo(q.Host, q.Port):
		d.Reason = "secret " + name + " is not bound to host " + JoinHostPort(q.Host, q.Port)
	default:
		return Decision{Allowed: true, Rule: "secret " + name}
	}
	return d
}

func (e *Engine) secret(name string) *boundSecret {
	for _, s := range e.secrets {
		if s.name == name {
			return s
		}
	}
	return nil
}

// Format implements fmt.Formatter, so that no verb prints a secret's value.
func (e *Engine) Format(f fmt.State, _ rune) {
	rules := 0
	for i := range e.layers {
		rules += len(e.layers[i].rules)
	}
	_, _ = io.WriteString(f, fmt.Sprintf("policy of %d rules and %d secrets", rules, len(e.secrets))) // fmt.State keeps its own errors
}
