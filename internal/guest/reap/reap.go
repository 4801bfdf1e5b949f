//go:build linux

// Package reap is how PID 1 starts and waits for processes. The kernel hands
// every orphan to PID 1, which must wait for it; and whoever waits for any
// child takes the exit of the children it started itself. So one Reaper does
// both: it starts processes, and its loop collects every exit and passes on
// those somebody waits for.
package reap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// ErrExited is returned by [Process.Signal] after the process has been reaped.
var ErrExited = errors.New("process has exited")

// Reaper owns wait4 in its process: nothing else there may wait for children,
// os/exec included. The zero value is ready; Run must run for exits to arrive.
type Reaper struct {
	// mu makes starting a process one step with learning its pid, so that an
	// exit is never collected before its waiter is known.
	mu      sync.Mutex
	started map[int]*Process
}

// Process is a process that has been started.
type Process struct {
	pid    int
	reaper *Reaper

	done   chan struct{} // closed once status is set
	status syscall.WaitStatus
}

// Start starts a program as syscall.ForkExec does. The error is ForkExec's.
func (r *Reaper) Start(path string, argv []string, attr *syscall.ProcAttr) (*Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return nil, err
	}
	p := &Process{pid: pid, reaper: r, done: make(chan struct{})}
	if r.started == nil {
		r.started = make(map[int]*Process)
	}
	r.started[pid] = p
	return p, nil
}

// Run collects exits until ctx is done.
func (r *Reaper) Run(ctx context.Context) error {
	exits := make(chan os.Signal, 1) // one pending signal stands for any number of exits
	signal.Notify(exits, syscall.SIGCHLD)
	defer signal.Stop(exits)
	for {
		if err := r.collect(); err != nil {
			return err
		}
		select {
		case <-exits:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// collect reaps every process that has exited by now.
func (r *Reaper) collect() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.ECHILD), err == nil && pid == 0:
			return nil
		case err != nil:
			return fmt.Errorf("cannot wait for children: %w", err)
		}
		if p := r.started[pid]; p != nil {
			delete(r.started, pid)
			p.status = status
			close(p.done)
		}
	}
}

// PID returns the process id; it may belong to another process once Done is closed.
func (p *Process) PID() int { return p.pid }

// Done is closed when the process has exited and Status may be called.
func (p *Process) Done() <-chan struct{} { return p.done }

// Status returns how the process ended. It must not be called before Done is closed.
func (p *Process) Status() syscall.WaitStatus { return p.status }

// Signal sends a signal to the process group that the process leads. While the
// leader is not reaped its id cannot be another group's.
func (p *Process) Signal(sig syscall.Signal) error {
	p.reaper.mu.Lock()
	defer p.reaper.mu.Unlock()
	if p.reaper.started[p.pid] != p {
		return ErrExited
	}
	return syscall.Kill(-p.pid, sig)
}
