package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

// Log takes events and gives each to its sinks, one after another. It may be used
// from any goroutine. A nil Log records nothing.
type Log struct {
	shared *shared
	vm     string
}

// shared is common to a Log and those made from it by For.
type shared struct {
	sinks  []Sink
	redact atomic.Pointer[redactor] // nil: nothing to redact

	mu  sync.Mutex // guards err, and the making of a redactor
	err error      // the first failure of a sink
}

// redactor replaces values. It holds them in functions, since fmt would print
// them in fields.
type redactor struct {
	values  func() []string
	replace func(string) string
}

// New returns a Log that writes chained lines to w, in one Write each. It does
// not close w.
func New(w io.Writer) *Log { return To(Lines(w)) }

// To returns a Log with these sinks, which it does not close.
func To(sinks ...Sink) *Log { return &Log{shared: &shared{sinks: sinks}} }

// For returns a Log to the same sinks, whose events say that they are of vm.
func (l *Log) For(vm string) *Log {
	if l == nil {
		return nil
	}
	return &Log{shared: l.shared, vm: vm}
}

// Redact has these values replaced wherever they occur in an event from now on,
// also in those of other Logs to the same sinks.
func (l *Log) Redact(values ...string) {
	if l == nil {
		return
	}
	l.shared.mu.Lock()
	defer l.shared.mu.Unlock()
	var known []string
	if r := l.shared.redact.Load(); r != nil {
		known = r.values()
	}
	all := newRedactor(append(slices.Clip(known), values...))
	l.shared.redact.Store(all)
}

// newRedactor prefers the longest of values that begin at the same place.
func newRedactor(values []string) *redactor {
	var unique, pairs []string
	seen := make(map[string]bool)
	for _, v := range values {
		if v != "" && !seen[v] {
			seen[v] = true
			unique = append(unique, v)
		}
	}
	sortByLength(unique)
	for _, v := range unique {
		pairs = append(pairs, v, "[redacted]")
	}
	return &redactor{values: func() []string { return unique }, replace: strings.NewReplacer(pairs...).Replace}
}

// Record gives one event to every sink. Its error is that of the first sink that
// failed; Err keeps it.
func (l *Log) Record(e Event) error {
	if l == nil {
		return nil
	}
	if e.VM == "" {
		e.VM = l.vm
	}
	body, err := l.encode(&e)
	if err != nil {
		return l.fail(fmt.Errorf("cannot encode audit event: %w", err))
	}
	var errs []error
	for _, s := range l.shared.sinks {
		if err := s.put(&e, body); err != nil {
			errs = append(errs, fmt.Errorf("cannot write audit event: %w", err))
		}
	}
	if len(errs) > 0 {
		return l.fail(errors.Join(errs...))
	}
	return nil
}

// Err returns the first failure to record an event. Callers that must not act
// unrecorded check it before they act.
func (l *Log) Err() error {
	if l == nil {
		return nil
	}
	l.shared.mu.Lock()
	defer l.shared.mu.Unlock()
	return l.shared.err
}

func (l *Log) fail(err error) error {
	l.shared.mu.Lock()
	defer l.shared.mu.Unlock()
	if l.shared.err == nil {
		l.shared.err = err
	}
	return err
}

// encode completes and cleans e, and returns its object without the closing
// brace.
func (l *Log) encode(e *Event) ([]byte, error) {
	e.Version, e.Seq, e.Hash = Version, 0, ""
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	e.Secrets = append([]string(nil), e.Secrets[:min(len(e.Secrets), maxSecrets)]...)
	e.Args = boundArgs(e.Args)
	e.Phases = l.boundPhases(e.Phases)
	l.clean(reflect.ValueOf(e).Elem())
	return object(e)
}

// object returns e as a JSON object without the closing brace.
func object(e *Event) ([]byte, error) {
	line, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return line[:len(line)-1], nil
}

func boundArgs(args []string) []string {
	var kept []string
	size := 0
	for i, a := range args {
		if size += len(a); i == maxArgs || size > maxArgBytes && i > 0 {
			return append(kept, fmt.Sprintf("… %d more", len(args)-i))
		}
		kept = append(kept, a)
	}
	return kept
}

func (l *Log) boundPhases(phases map[string]float64) map[string]float64 {
	if phases == nil {
		return nil
	}
	kept := make(map[string]float64, len(phases))
	for name, ms := range phases {
		if len(kept) < maxPhases {
			kept[l.text(name)] = ms
		}
	}
	return kept
}

// clean bounds and redacts every string below v, so that a field added later
// cannot be forgotten. Maps are not strings' only place: boundPhases has those.
func (l *Log) clean(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if s := v.String(); s != "" {
			v.SetString(l.text(s))
		}
	case reflect.Slice:
		for i := range v.Len() {
			l.clean(v.Index(i))
		}
	case reflect.Struct:
		if v.Type() == timeType {
			return
		}
		for _, field := range v.Fields() {
			l.clean(field)
		}
	default:
	}
}

var timeType = reflect.TypeFor[time.Time]()

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
	if r := l.shared.redact.Load(); r != nil {
		s = r.replace(s)
	}
	if len(s) <= maxText && isPlainASCII(s) {
		return s
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

func isPlainASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x7f {
			return false
		}
	}
	return true
}
