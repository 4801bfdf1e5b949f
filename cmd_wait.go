package gondolin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"

	"gondolin/internal/control"
	"gondolin/internal/wire"
)

// Wait waits for the command's end and for its output to be copied. It returns
// nil if the command exited with 0, an [*ExitError] if not, an error that also
// is the context's if that ended it, however it exited, and one wrapping
// [ErrClosed] if the VM was closed.
func (c *Cmd) Wait() error {
	if c.process == nil {
		return errors.New("cannot wait: the command was not started")
	}
	if c.waited {
		return errors.New("cannot wait twice")
	}
	c.waited = true
	defer c.vm.finish()
	defer c.closePipes()
	defer c.process.Release()
	err := c.await()
	c.auditEnd(err)
	return err
}

// await waits for the end, with the context's end in view.
func (c *Cmd) await() error {
	s := c.supervise()
	defer s.stop()
	err := c.exit(s.over)
	if err = cmp.Or(err, c.collect(s.over)); s.told.Load() || errors.Is(err, errSilent) {
		return cancelled(context.Cause(c.ctx), err)
	}
	return err
}

func cancelled(cause, err error) error {
	if err == nil {
		return cause
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// errSilent is the end of a command whose guest does not say what became of it.
var errSilent = errors.New("the guest did not end the command when told to")

// supervisor terminates a command whose context ends before it does.
type supervisor struct {
	told  atomic.Bool   // the command was told to end
	over  chan struct{} // closed when a guest whose time is up has had enough of it
	ended chan struct{} // closed when Wait has all it waits for
	stop  func()
}

func (c *Cmd) supervise() *supervisor {
	s := &supervisor{over: make(chan struct{}), ended: make(chan struct{})}
	grace := c.grace()
	limit := grace + c.waitDelay() + cancelMargin
	release := context.AfterFunc(c.ctx, func() { s.terminate(c.process, grace, limit) })
	s.stop = func() {
		release()
		close(s.ended)
	}
	return s
}

// terminate ends p, and Wait limit later, whatever the guest says.
func (s *supervisor) terminate(p *control.Process, grace, limit time.Duration) {
	select {
	case <-p.Exited(): // by itself; its output may still be open
	default:
		s.told.Store(true)
		go func() { _ = p.Terminate(grace) }()
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.ended:
	case <-timer.C:
		close(s.over)
	}
}

func (c *Cmd) grace() time.Duration {
	switch {
	case c.Grace == 0:
		return DefaultGrace
	case c.Grace < 0:
		return 0
	default:
		return min(c.Grace, wire.MaxWaitDelay)
	}
}

// exit waits for the process and turns its end into an error.
func (c *Cmd) exit(over <-chan struct{}) error {
	select {
	case <-c.process.Exited():
	case <-over:
		return errSilent
	}
	end, err := c.process.Exit()
	switch {
	case err != nil:
		c.closeOutputs() // a guest that breaks the protocol here is not waited for there
		return c.vm.failure(err)
	case end.Signal != 0:
		return &ExitError{Signal: syscall.Signal(end.Signal), code: 128 + end.Signal}
	case end.Code != 0:
		return &ExitError{code: end.Code}
	}
	return nil
}

// collect waits for the output to be copied and for the guest to say that it is
// all. When it returns nothing is written to Stdout and Stderr any more, unless a
// Write does not return.
func (c *Cmd) collect(over <-chan struct{}) error {
	var first error
	for copied := range cap(c.copied) {
		select {
		case err := <-c.copied:
			first = cmp.Or(first, err)
		case <-over:
			c.closeOutputs()
			c.closePipes()
			c.awaitCopies(cap(c.copied) - copied)
			return errSilent
		}
	}
	select {
	case err := <-c.input:
		return cmp.Or(first, err)
	default:
	}
	if first != nil || c.WaitDelay == 0 {
		return first
	}
	select {
	case <-c.process.Drained():
	case <-over:
		return errSilent
	}
	if c.process.Cut() {
		return exec.ErrWaitDelay
	}
	return nil
}

// awaitCopies waits for copies that have been ended.
func (c *Cmd) awaitCopies(running int) {
	timer := time.NewTimer(lastWrite)
	defer timer.Stop()
	for range running {
		select {
		case <-c.copied: //nolint:errcheck // it was cut off, by us
		case <-timer.C:
			return
		}
	}
}

func (c *Cmd) closeOutputs() {
	for _, out := range []*control.Output{c.process.Stdout, c.process.Stderr} {
		if out != nil {
			out.Close()
		}
	}
}

func (c *Cmd) closePipes() {
	for _, p := range c.pipes {
		p.Close()
	}
}
