// Package audit writes what a sandbox did and which rule decided it, one JSON
// object a line.
//
// Events hold text of the guest's choice. Every string is bounded, valid UTF-8,
// and free of the secret values the log was told about; that is the last line of
// defence, since no caller should pass one.
package audit

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxText bounds each string of an event in bytes, so that an event is at
// most about 100 KiB however it is escaped, and usually below 1 KiB.
const maxText = 1024

// maxSecrets bounds the secret names listed in one event.
const maxSecrets = 16

// Kind says what an event is about.
type Kind string

// The kinds of events.
const (
	DNS        Kind = "dns"        // a name query and its answer
	Connection Kind = "connection" // a connection: the guest's when refused, the upstream one when dialled
	Request    Kind = "request"    // an HTTP request, at its end
)

// Decision is what became of it.
type Decision string

// The decisions.
const (
	Allow Decision = "allow"
	Deny  Decision = "deny"
)

// Event is one line. Empty fields are left out.
type Event struct {
	Time       time.Time `json:"time"` // zero: now
	Kind       Kind      `json:"kind"`
	Decision   Decision  `json:"decision"`
	Rule       string    `json:"rule,omitempty"`   // the rule that allowed it
	Reason     string    `json:"reason,omitempty"` // why it was refused, or failed
	Name       string    `json:"name,omitempty"`   // DNS name
	Type       string    `json:"type,omitempty"`   // DNS query type
	Address    string    `json:"address,omitempty"`
	Port       int       `json:"port,omitempty"`
	Scheme     string    `json:"scheme,omitempty"`
	Method     string    `json:"method,omitempty"`
	Host       string    `json:"host,omitempty"`
	Path       string    `json:"path,omitempty"` // without the query
	Status     int       `json:"status,omitempty"`
	Sent       int64     `json:"sent,omitempty"`     // body bytes from the guest
	Received   int64     `json:"received,omitempty"` // body bytes to the guest
	DurationMS int64     `json:"duration_ms,omitempty"`
	Secrets    []string  `json:"secrets,omitempty"` // names of the secrets that were sent
}

// Log writes events to one writer, in one piece each and one after another.
// A nil Log records nothing.
type Log struct {
	out    *output
	redact func(string) string // nil: nothing to redact; a function, since fmt would print the values in a field
}

// output is shared by a Log and those made from it by Redacting.
type output struct {
	mu  sync.Mutex // guards the fields below
	w   io.Writer
	err error // the first failure of w
}

// New returns a Log that writes to w, which it does not close.
func New(w io.Writer) *Log { return &Log{out: &output{w: w}} }

// Redacting returns a Log with the same output that also replaces the values
// wherever they occur in an event.
func (l *Log) Redacting(values ...string) *Log {
	if l == nil || len(values) == 0 {
		return l
	}
	pairs := make([]string, 0, 2*len(values))
	for _, v := range values {
		if v != "" {
			pairs = append(pairs, v, "[redacted]")
		}
	}
	return &Log{out: l.out, redact: strings.NewReplacer(pairs...).Replace}
}

// Record writes one event. Its error is that of the writer; Err keeps the first.
func (l *Log) Record(e Event) error {
	if l == nil {
		return nil
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	e.Secrets = append([]string(nil), e.Secrets[:min(len(e.Secrets), maxSecrets)]...)
	l.clean(reflect.ValueOf(&e).Elem())
	line, err := json.Marshal(e)
	if err != nil {
		return l.out.fail(fmt.Errorf("cannot encode audit event: %w", err))
	}
	return l.out.write(append(line, '\n'))
}

// Err returns the first failure to record an event. Callers that must not act
// unrecorded check it before they act.
func (l *Log) Err() error {
	if l == nil {
		return nil
	}
	l.out.mu.Lock()
	defer l.out.mu.Unlock()
	return l.out.err
}

func (o *output) write(line []byte) error {
	o.mu.Lock()
	_, err := o.w.Write(line)
	o.mu.Unlock()
	if err != nil {
		return o.fail(fmt.Errorf("cannot write audit event: %w", err))
	}
	return nil
}

func (o *output) fail(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		o.err = err
	}
	return err
}

// clean bounds and redacts every string below v, so that a field added later
// cannot be forgotten.
func (l *Log) clean(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(l.text(v.String()))
	case reflect.Slice:
		for i := range v.Len() {
			l.clean(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				l.clean(v.Field(i))
			}
		}
	default:
	}
}

func plain(r rune) rune {
	if r >= 0x7f && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
		return '\uFFFD'
	}
	return r
}

// text redacts before it cuts: a cut value would no longer be found. Control and
// formatting characters go, since JSON leaves some of them as they are (C1,
// bidirectional overrides) and a terminal obeys them.
func (l *Log) text(s string) string {
	if l.redact != nil {
		s = l.redact(s)
	}
	if len(s) > maxText {
		cut := maxText
		for cut > maxText-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "…"
	}
	return strings.Map(plain, strings.ToValidUTF8(s, "\uFFFD"))
}
