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
	mu       sync.Mutex // guards the rest; never held while a program is being executed, which may take for ever
	started  map[int]*Process
	starting int                        // starts under way
	early    map[int]syscall.WaitStatus // exits of processes nobody waits for yet, kept while starting > 0
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
	r.starting++
	r.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, attr)
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.startedLocked()
	if err != nil {
		return nil, err
	}
	p := &Process{pid: pid, reaper: r, done: make(chan struct{})}
	// An early exit is this process's only if there is no such process now: the id may
	// have been another's before.
	if status, exited := r.early[pid]; exited && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		p.end(status)
		return p, nil
	}
	if r.started == nil {
		r.started = make(map[int]*Process)
	}
	r.started[pid] = p
	return p, nil
}

// startedLocked notes that a start is over.
func (r *Reaper) startedLocked() {
	if r.starting--; r.starting == 0 {
		r.early = nil
	}
}

func (p *Process) end(status syscall.WaitStatus) {
	p.status = status
	close(p.done)
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
		r.exitedLocked(pid, status)
	}
}

func (r *Reaper) exitedLocked(pid int, status syscall.WaitStatus) {
	if p := r.started[pid]; p != nil {
		delete(r.started, pid)
		p.end(status)
		return
	}
	if r.starting == 0 {
		return // an orphan
	}
	if r.early == nil {
		r.early = make(map[int]syscall.WaitStatus)
	}
	r.early[pid] = status // at most one for each process id there is
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
