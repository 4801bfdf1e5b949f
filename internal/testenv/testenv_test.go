package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// shortPatience is for things that are held on purpose and will not go away.
const shortPatience = 20 * time.Millisecond

// recorder stands in for a test: it remembers failures and runs cleanups when told.
type recorder struct {
	testing.TB
	cleanups []func()
	errors   []string
}

func (r *recorder) Helper()                   {}
func (r *recorder) Failed() bool              { return false }
func (r *recorder) Skipped() bool             { return false }
func (r *recorder) Cleanup(f func())          { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(f string, a ...any) { r.errors = append(r.errors, fmt.Sprintf(f, a...)) }
func (r *recorder) end() {
	for _, cleanup := range slices.Backward(r.cleanups) {
		cleanup()
	}
}

func TestCheckLeaksSeesEachKind(t *testing.T) {
	stop := make(chan struct{})
	kinds := map[string]func() (undo func()){
		"waitForStop": func() func() {
			go waitForStop(stop)
			return func() { close(stop) }
		},
	}
	if runtime.GOOS == "linux" {
		kinds["file descriptor"] = func() func() {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			return func() { f.Close() }
		}
		kinds["child process"] = func() func() {
			cmd := exec.Command("sleep", "60")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := cmd.Process.Kill(); err != nil {
					t.Error(err)
				}
				_ = cmd.Wait()
			}
		}
	}
	for want, hold := range kinds {
		r := &recorder{TB: t}
		checkLeaks(r, shortPatience)
		undo := hold()
		r.end()
		if !strings.Contains(strings.Join(r.errors, "\n"), want) {
			t.Errorf("no leak of %q reported, only %q", want, r.errors)
		}
		undo()
	}
}

func waitForStop(stop <-chan struct{}) { <-stop }

func TestCheckLeaksCleanTest(t *testing.T) {
	r := &recorder{TB: t}
	CheckLeaks(r)
	done := make(chan struct{})
	go close(done)
	<-done
	if err := exec.Command("true").Run(); err != nil {
		t.Fatal(err)
	}
	r.end()
	if len(r.errors) != 0 {
		t.Errorf("clean test blamed: %q", r.errors)
	}
}

func TestCheckEmpty(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"kept", "left"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := &recorder{TB: t}
	checkEmpty(r, shortPatience, dir, []string{"kept"})
	r.end()
	if len(r.errors) != 1 || !strings.HasSuffix(r.errors[0], "left") {
		t.Errorf("got %q, want one about left", r.errors)
	}
}

func TestSkipFails(t *testing.T) {
	for _, tt := range []struct {
		reason Reason
		env    string
		want   bool
	}{
		{ReasonQEMU, "", false},
		{ReasonQEMU, "0", false},
		{ReasonQEMU, "1", true},
		{ReasonImage, "1", true},
		{ReasonKVM, "1", false},
		{ReasonMacOS, "1", false},
	} {
		if got := skipFails(tt.reason, tt.env); got != tt.want {
			t.Errorf("skipFails(%s, %q) = %v, want %v", tt.reason, tt.env, got, tt.want)
		}
	}
}
