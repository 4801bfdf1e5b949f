package gondolin_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"gondolin"
	"gondolin/internal/audit"
	"gondolin/internal/vmtest"
	"gondolin/policy"
)

// eventList is what is received from Config.AuditEvents.
type eventList struct {
	ch   chan gondolin.AuditEvent
	done chan struct{}

	mu   sync.Mutex // guards list
	list []gondolin.AuditEvent
}

func receiveEvents() *eventList {
	l := &eventList{ch: make(chan gondolin.AuditEvent), done: make(chan struct{})}
	go l.receive()
	return l
}

func (l *eventList) receive() {
	defer close(l.done)
	for e := range l.ch {
		l.mu.Lock()
		l.list = append(l.list, e)
		l.mu.Unlock()
	}
}

// TestAudit records one VM's life in every sink.
func TestAudit(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	file, err := gondolin.OpenAudit(name, gondolin.AuditFileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	events := receiveEvents()
	var lines, log bytes.Buffer
	vm := vmtest.Start(t, gondolin.Config{
		Network: policy.Network{Allow: []policy.Rule{{Host: "api.test"}}, Secrets: map[string]policy.Secret{"TOKEN": {Hosts: []string{"api.test"}, Value: token}}},
		Audit:   &lines, AuditFile: file, AuditEvents: events.ch, AuditLog: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err := vm.Command(t.Context(), "sh", "-c", "exit 3", token).Run(); err == nil {
		t.Error("exit 3 is no error")
	}
	if err := vm.Command(t.Context(), "/no/such/program").Run(); err == nil {
		t.Error("a missing program ran")
	}
	_ = vm.Shell(t.Context(), "curl -s http://evil.test/; kill -9 $$").Run()
	if err := errors.Join(vm.Pause(t.Context()), vm.Resume(t.Context()), vm.Close(), file.Close()); err != nil {
		t.Fatal(err)
	}
	close(events.ch)
	<-events.done
	checkEvents(t, events.list)

	report, err := audit.Verify(name, audit.Hash{})
	if err != nil || !report.Closed || report.Events != uint64(len(events.list))+2 {
		t.Errorf("%+v, %v: %d events were received", report, err, len(events.list))
	}
	if r, err := audit.VerifyLines(bytes.NewReader(lines.Bytes()), audit.Hash{}); err != nil || r.Events != uint64(len(events.list)) {
		t.Errorf("%+v, %v", r, err)
	}
	if n := strings.Count(log.String(), "msg=audit"); n != len(events.list) {
		t.Errorf("%d of %d events were logged", n, len(events.list))
	}
	written, err := os.ReadFile(name)
	if err != nil || bytes.Contains(written, []byte(token)) || strings.Contains(log.String()+lines.String(), token) {
		t.Errorf("the secret was recorded, %v", err)
	}
}

func checkEvents(t *testing.T, list []gondolin.AuditEvent) {
	t.Helper()
	for name, match := range map[string]func(e gondolin.AuditEvent) bool{
		"start": func(e gondolin.AuditEvent) bool { return e.Phase == "start" && strings.HasPrefix(e.Source, "sha256:") },
		"ready": func(e gondolin.AuditEvent) bool { return e.Phase == "ready" && e.Phases["guest"] > 0 },
		"exec": func(e gondolin.AuditEvent) bool {
			return e.Exec == 1 && e.Phase == "start" && slices.Equal(e.Args, []string{"sh", "-c", "exit 3", "[redacted]"})
		},
		"exit": func(e gondolin.AuditEvent) bool {
			return e.Exec == 1 && e.Phase == "end" && e.PID > 0 && e.Exit != nil && *e.Exit == 3
		},
		"missing": func(e gondolin.AuditEvent) bool {
			return e.Exec == 2 && e.Phase == "end" && e.Exit == nil && e.Reason != ""
		},
		"killed": func(e gondolin.AuditEvent) bool { return e.Exec == 3 && e.Phase == "end" && e.Signal == 9 },
		"request": func(e gondolin.AuditEvent) bool {
			return e.Kind == audit.Request && e.Decision == audit.Deny && e.Host == "evil.test" && e.Status == 403
		},
		"pause":  func(e gondolin.AuditEvent) bool { return e.Kind == audit.Lifecycle && e.Phase == "pause" },
		"resume": func(e gondolin.AuditEvent) bool { return e.Kind == audit.Lifecycle && e.Phase == "resume" },
	} {
		if !slices.ContainsFunc(list, match) {
			t.Errorf("no event for: %s", name)
		}
	}
	if last := list[len(list)-1]; last.Kind != audit.Lifecycle || last.Phase != "end" || last.Reason != "" {
		t.Errorf("the last event is %+v", last)
	}
	for _, e := range list {
		if e.VM == "" || e.VM != list[0].VM {
			t.Errorf("event of VM %q: %+v", e.VM, e)
		}
	}
}

// TestUnrecordedCommandsDoNotRun has the audit fail once the VM runs.
func TestUnrecordedCommandsDoNotRun(t *testing.T) {
	var w failAfter
	vm := vmtest.Start(t, gondolin.Config{Audit: &w})
	w.fail()
	if err := vm.Command(t.Context(), "true").Run(); err == nil || !strings.Contains(err.Error(), "cannot be recorded") {
		t.Errorf("%v", err)
	}
}

// failAfter is a writer that fails from some time on.
type failAfter struct {
	mu     sync.Mutex // guards failed
	failed bool
}

func (w *failAfter) fail() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = true
}

func (w *failAfter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed {
		return 0, errors.New("disk full")
	}
	return len(p), nil
}
