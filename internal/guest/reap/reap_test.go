//go:build linux

package reap

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func run(t *testing.T) *Reaper {
	t.Helper()
	r := new(Reaper)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return r
}

func shell(t *testing.T, r *Reaper, script string, files ...uintptr) *Process {
	t.Helper()
	p, err := r.Start("/bin/sh", []string{"sh", "-c", script}, &syscall.ProcAttr{
		Env: []string{"PATH=" + os.Getenv("PATH")}, Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestExitCodes(t *testing.T) {
	r := run(t)
	var procs []*Process
	for i := range 50 { // many at once: exits coalesce into few signals
		procs = append(procs, shell(t, r, "exit "+strconv.Itoa(i)))
	}
	for i, p := range procs {
		<-p.Done()
		if got := p.Status().ExitStatus(); got != i {
			t.Errorf("process %d exited with %d", i, got)
		}
		if err := p.Signal(syscall.SIGTERM); !errors.Is(err, ErrExited) {
			t.Errorf("signal after exit: %v", err)
		}
	}
}

// Processes that exit before their start has returned are not lost.
func TestManyStartsAtOnce(t *testing.T) {
	r := run(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 50 {
				code := (i*50 + j) % 200
				p, err := r.Start("/bin/sh", []string{"sh", "-c", "exit " + strconv.Itoa(code)}, &syscall.ProcAttr{})
				if err != nil {
					t.Error(err)
					return
				}
				<-p.Done()
				if got := p.Status().ExitStatus(); got != code {
					t.Errorf("%d instead of %d", got, code)
				}
			}
		})
	}
	all.Wait()
}

func TestStartFails(t *testing.T) {
	r := run(t)
	_, err := r.Start("/no/such/program", []string{"x"}, &syscall.ProcAttr{})
	if !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
}

func TestSignalGroup(t *testing.T) {
	r := run(t)
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	p := shell(t, r, "sleep 1000 & echo ready >&1; wait", 0, pw.Fd(), 2)
	pw.Close()
	buf := make([]byte, 6)
	if _, err := pr.Read(buf); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if got := p.Status().Signal(); got != syscall.SIGKILL {
		t.Errorf("ended by %v", got)
	}
	// The pipe closes only when the background sleep is gone too.
	if n, err := pr.Read(buf); n != 0 || err == nil {
		t.Errorf("pipe still open: %d, %v", n, err)
	}
}

// An orphan is handed to the subreaper, which must wait for it.
func TestOrphans(t *testing.T) {
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, 36 /* PR_SET_CHILD_SUBREAPER, linux/prctl.h */, 1, 0, 0, 0, 0); errno != 0 {
		t.Fatal(errno)
	}
	r := run(t)
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	// The orphan outlives its parent, tells its pid, and exits.
	p := shell(t, r, `sh -c 'echo $$' & :`, 0, pw.Fd(), 2)
	pw.Close()
	<-p.Done()
	buf := make([]byte, 32)
	n, err := pr.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		t.Fatal(err)
	}
	for { // it is a zombie until reaped; each exit wakes the loop, so this ends
		if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
			return
		}
		if t.Context().Err() != nil {
			t.Fatal("orphan was not reaped")
		}
		runtime.Gosched()
	}
}
