package gondolin

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"gondolin/internal/audit"
)

// AuditEvent is one event of the audit. Its text is cleaned and bounded; what is in
// it may be of the guest's choice all the same.
type AuditEvent = audit.Event

// AuditFile is a file of audit events, chained so that changes can be found.
type AuditFile = audit.File

// AuditFileOptions are the bounds of an [AuditFile]. The zero value is usable.
type AuditFileOptions = audit.FileOptions

// OpenAudit opens the audit file name for [Config.AuditFile], or begins it. The
// caller closes it after the VMs it records.
func OpenAudit(name string, options AuditFileOptions) (*AuditFile, error) {
	return audit.OpenFile(name, options)
}

// auditLog makes the log of one VM. Once over is closed nothing waits for a reader.
func (c Config) auditLog(vm string, over <-chan struct{}) *audit.Log {
	var sinks []audit.Sink
	if c.Audit != nil {
		sinks = append(sinks, audit.Lines(c.Audit))
	}
	if c.AuditFile != nil {
		sinks = append(sinks, c.AuditFile)
	}
	if c.AuditLog != nil {
		sinks = append(sinks, audit.Slog(c.AuditLog))
	}
	if c.AuditEvents != nil {
		sinks = append(sinks, audit.Channel(c.AuditEvents, over))
	}
	if sinks == nil {
		return nil
	}
	return audit.To(sinks...).For(vm)
}

// newID names a VM among those that share a log.
func newID() string {
	b := make([]byte, 6)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// lifecycle records a step in the VM's life.
func (vm *VM) lifecycle(phase string, err error) {
	vm.note(audit.Event{Kind: audit.Lifecycle, Phase: phase, Reason: reasonOf(err)})
}

// note records what has happened. That it cannot be recorded keeps the next request
// and command from happening.
func (vm *VM) note(e audit.Event) {
	failed := vm.audit.Err() != nil
	if err := vm.audit.Record(e); err != nil && !failed {
		vm.config.Log.Error("audit event lost", "error", err)
	}
}

func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// auditReady records that the VM can be used, and what starting took.
func (vm *VM) auditReady() {
	vm.auditPhases("ready", vm.timings)
}

// auditStart records that the command is about to run. A command that cannot be
// recorded does not run.
func (c *Cmd) auditStart() error {
	c.number, c.began = c.vm.commands.Add(1), time.Now()
	err := c.vm.audit.Record(audit.Event{
		Kind: audit.Exec, Phase: "start", Exec: c.number, Args: c.Args, Dir: c.Dir, User: c.User,
	})
	if err = errors.Join(err, c.vm.audit.Err()); err != nil {
		return fmt.Errorf("cannot run %q: it cannot be recorded: %w", c.Args[0], err)
	}
	return nil
}

// auditEnd records how the command ended.
func (c *Cmd) auditEnd(err error) {
	e := audit.Event{Kind: audit.Exec, Phase: "end", Exec: c.number, PID: c.PID(), DurationMS: time.Since(c.began).Milliseconds()}
	code := 0
	exit, failed := errors.AsType[*ExitError](err)
	switch {
	case failed && exit.Signal != 0:
		e.Signal = int(exit.Signal)
	case failed:
		code = exit.ExitCode()
		e.Exit = &code
	case err == nil:
		e.Exit = &code
	}
	if !failed || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		e.Reason = reasonOf(err)
	}
	c.vm.note(e)
}
