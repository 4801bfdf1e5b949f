package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"gondolin/internal/audit"
)

func TestRecord(t *testing.T) {
	var out bytes.Buffer
	l := audit.New(&out)
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := l.Record(audit.Event{Time: when, Kind: audit.Request, Decision: audit.Deny, Reason: "no", Method: "GET", Status: 403, Secrets: []string{"T"}}); err != nil {
		t.Fatal(err)
	}
	want := `{"time":"2026-01-02T03:04:05Z","kind":"request","decision":"deny","reason":"no","method":"GET","status":403,"secrets":["T"]}` + "\n"
	if out.String() != want {
		t.Errorf("got  %swant %s", out.String(), want)
	}
}

func TestNilRecordsNothing(t *testing.T) {
	var l *audit.Log
	if err := errors.Join(l.Record(audit.Event{}), l.Err(), l.Redacting("x").Record(audit.Event{})); err != nil {
		t.Error(err)
	}
}

func TestBoundedValidRedacted(t *testing.T) {
	var out bytes.Buffer
	l := audit.New(&out).Redacting("hunter2-hunter2")
	secrets := make([]string, 1000)
	secrets[0] = "hunter2-hunter2"
	bad := strings.Repeat("\xff\x00é", 5000)
	straddling := strings.Repeat("a", 1024-7) + "hunter2-hunter2"
	if err := l.Record(audit.Event{
		Kind: audit.Request, Rule: bad, Reason: straddling, Name: "xhunter2-hunter2x", Type: bad, Address: bad, Scheme: bad, Method: bad, Host: bad, Path: "/hunter2-hunter2", Secrets: secrets,
	}); err != nil {
		t.Fatal(err)
	}
	if out.Len() > 100<<10 || !utf8.Valid(out.Bytes()) || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
		t.Errorf("%d bytes", out.Len())
	}
	if strings.Contains(out.String(), "hunter2") {
		t.Errorf("the value is in %s", out.String())
	}
	if secrets[0] != "hunter2-hunter2" {
		t.Error("the caller's slice was changed")
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
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 1600 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Fatalf("not JSON: %s", line)
		}
	}
}

type broken struct{}

var errDisk = errors.New("disk full")

func (broken) Write([]byte) (int, error) { return 0, errDisk }

func TestWriterErrorSurfaces(t *testing.T) {
	l := audit.New(broken{})
	if err := l.Record(audit.Event{}); !errors.Is(err, errDisk) {
		t.Error(err)
	}
	if err := l.Redacting("x").Err(); !errors.Is(err, errDisk) {
		t.Error(err)
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
