package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"gondolin/internal/audit"
)

func TestRecord(t *testing.T) {
	var out bytes.Buffer
	l := audit.New(&out).For("vm1")
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := l.Record(audit.Event{Time: when, Kind: audit.Request, Decision: audit.Deny, Reason: "no", Method: "GET", Status: 403, Secrets: []string{"T"}}); err != nil {
		t.Fatal(err)
	}
	// The hash was computed with sha256sum over 32 zero bytes and the text before it.
	want := `{"v":1,"time":"2026-01-02T03:04:05Z","vm":"vm1","kind":"request","decision":"deny","reason":"no","method":"GET","status":403,"secrets":["T"],"seq":1` +
		`,"hash":"018cc9e347491f29db9ab017199e820df37871ec2d9faffeecb2ecfb56a704ca"}` + "\n"
	if out.String() != want {
		t.Errorf("got  %swant %s", out.String(), want)
	}
}

func TestNilRecordsNothing(t *testing.T) {
	var l *audit.Log
	l.Redact("x")
	if err := errors.Join(l.Record(audit.Event{}), l.Err(), l.For("x").Record(audit.Event{})); err != nil {
		t.Error(err)
	}
}

func TestBoundedValidRedacted(t *testing.T) {
	var out bytes.Buffer
	l := audit.New(&out)
	l.Redact("hunter2")
	l.For("other").Redact("hunter2-hunter2") // for all, and the longer one wins
	secrets, args := make([]string, 1000), make([]string, 1000)
	secrets[0], args[0] = "hunter2-hunter2", "hunter2-hunter2"
	bad := strings.Repeat("\xff\x00é", 5000)
	for i := range args[1:] {
		args[i+1] = bad
	}
	phases := map[string]float64{"hunter2": 1}
	for range 1000 {
		phases[strings.Repeat("é", len(phases))] = 1e300
	}
	straddling := strings.Repeat("a", 1024-7) + "hunter2-hunter2"
	if err := l.Record(audit.Event{
		Kind: audit.Request, Phase: bad, Code: bad, Rule: bad, Reason: straddling, Name: "xhunter2-hunter2x", Type: bad, Address: bad, Scheme: bad,
		Method: bad, Host: bad, Path: "/hunter2-hunter2", Secrets: secrets, Args: args, Dir: bad, User: bad, Mount: bad, Op: bad, To: bad,
		Policy: bad, Source: bad, Phases: phases, Previous: bad,
	}); err != nil {
		t.Fatal(err)
	}
	if out.Len() > audit.MaxLine || !utf8.Valid(out.Bytes()) || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
		t.Errorf("%d bytes", out.Len())
	}
	if strings.Contains(out.String(), "hunter2") || strings.Contains(out.String(), "]-[") {
		t.Errorf("the value is in %s", out.String())
	}
	if secrets[0] != "hunter2-hunter2" || args[0] != "hunter2-hunter2" {
		t.Error("the caller's slice was changed")
	}
	if _, err := audit.VerifyLines(&out, audit.Hash{}); err != nil {
		t.Error(err)
	}
}

func TestConcurrentLinesAreWhole(t *testing.T) {
	var out bytes.Buffer // unguarded: the race detector watches that Log serialises
	l := audit.New(&out)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 200 {
				_ = l.Record(audit.Event{Kind: audit.DNS, Name: "a.test"})
			}
		})
	}
	group.Wait()
	report, err := audit.VerifyLines(&out, audit.Hash{})
	if err != nil || report.Events != 1600 {
		t.Fatalf("%+v, %v", report, err)
	}
}

type broken struct{ writes int }

var errDisk = errors.New("disk full")

func (b *broken) Write([]byte) (int, error) { b.writes++; return 0, errDisk }

func TestWriterErrorSurfacesAndStays(t *testing.T) {
	b := &broken{}
	l := audit.New(b)
	if err := l.Record(audit.Event{}); !errors.Is(err, errDisk) {
		t.Error(err)
	}
	if err := l.For("x").Err(); !errors.Is(err, errDisk) {
		t.Error(err)
	}
	if err := l.Record(audit.Event{}); !errors.Is(err, errDisk) || b.writes != 1 {
		t.Errorf("%v after %d writes: a line after a lost one would break the chain", err, b.writes)
	}
}

func TestControlCharactersAreReplaced(t *testing.T) {
	var out bytes.Buffer
	if err := audit.New(&out).Record(audit.Event{Kind: audit.DNS, Name: "a\x1b[2J\u009b2J\u202egro.live\x7f\n{}é"}); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\u009b\u202e\x7f") || strings.Count(out.String(), "\n") != 1 || !strings.Contains(out.String(), "é") {
		t.Errorf("line %q", out.String())
	}
}

// TestSlogHasEveryField compares with what the schema's own encoding has.
func TestSlogHasEveryField(t *testing.T) {
	one := 1
	e := audit.Event{
		VM: "a", Kind: audit.Exec, Phase: "b", Decision: audit.Deny, Code: "c", Rule: "d", Reason: "e", Name: "f", Type: "g", Address: "h", Port: 1,
		Request: 2, Scheme: "i", Method: "j", Host: "k", Path: "l", Status: 3, Sent: 4, Received: 5, Secrets: []string{"m"}, Exec: 6, Args: []string{"n"},
		Dir: "o", User: "p", PID: 7, Exit: &one, Signal: 8, Mount: "q", Op: "r", To: "s", Policy: "t", Source: "u", Phases: map[string]float64{"v": 9},
		DurationMS: 10,
	}
	var text bytes.Buffer
	if err := audit.To(audit.Slog(slog.New(slog.NewJSONHandler(&text, nil)))).Record(e); err != nil {
		t.Fatal(err)
	}
	var logged, encoded map[string]any
	raw, _ := json.Marshal(e)
	if err := errors.Join(json.Unmarshal(text.Bytes(), &logged), json.Unmarshal(raw, &encoded)); err != nil {
		t.Fatal(err)
	}
	if logged["level"] != "WARN" || logged["msg"] != "audit" {
		t.Errorf("%v", logged)
	}
	delete(encoded, "v")
	for key := range encoded {
		if _, ok := logged[key]; !ok {
			t.Errorf("%s is not logged", key)
		}
	}
}

func TestChannelWaitsAndStops(t *testing.T) {
	ch, done := make(chan audit.Event), make(chan struct{})
	l := audit.To(audit.Lines(io.Discard), audit.Channel(ch, done))
	go func() { _ = l.Record(audit.Event{Kind: audit.DNS, Name: "a.test"}) }()
	if e := <-ch; e.Name != "a.test" || e.Version != audit.Version || e.Time.IsZero() {
		t.Errorf("%+v", e)
	}
	close(done)
	if err := l.Record(audit.Event{Kind: audit.DNS}); err == nil || l.Err() == nil {
		t.Error("an event that nobody took is recorded")
	}
}
