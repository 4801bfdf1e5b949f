package qemu

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"syscall"

	"gondolin/internal/machine"
)

// panicText is how every Linux kernel panic starts (kernel/panic.c). It is text
// from the guest, good enough to word an error with.
var panicText = []byte("Kernel panic - not syncing")

// ending is what is known when QEMU has gone.
type ending struct {
	ran      bool   // QEMU's monitor answered
	failure  error  // why the host killed it, other than by Close
	shutdown string // the reason in QEMU's SHUTDOWN event (qapi/run-state.json), if there was one
	wait     error  // from exec.Cmd.Wait
	console  []byte
	stderr   []byte
}

// exitError says why a machine ended that nobody closed.
func (e ending) exitError() *machine.ExitError {
	cause, reason := e.cause()
	return &machine.ExitError{
		Cause: cause, Reason: reason,
		Stderr:  machine.Sanitize(e.stderr),
		Console: machine.Sanitize(e.console),
	}
}

func (e ending) cause() (machine.Cause, string) {
	switch {
	case e.failure != nil:
		return machine.CauseHost, e.failure.Error()
	case !e.ran:
		return machine.CauseStart, "qemu did not start: " + exitText(e.wait)
	}
	switch e.shutdown {
	case "guest-shutdown":
		return machine.CauseGuest, "the guest powered off"
	case "guest-panic":
		return machine.CausePanic, "the guest's kernel panicked"
	case "guest-reset": // a panic reboots, see kernelCmdline
		if _, text, ok := bytes.Cut(e.console, panicText); ok {
			text, _, _ = bytes.Cut(text, []byte("\n"))
			return machine.CausePanic, "the guest said " + shorten(string(panicText)+string(text))
		}
		return machine.CauseGuest, "the guest rebooted"
	case "host-signal":
		return machine.CauseHost, "qemu was stopped by a signal"
	case "host-qmp-quit":
		return machine.CauseHost, "qemu was told to quit"
	}
	var exit *exec.ExitError
	if errors.As(e.wait, &exit) && exit.Sys() != nil {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return machine.CauseHost, "qemu died: " + exitText(e.wait)
		}
	}
	return machine.CauseUnknown, "qemu ended: " + exitText(e.wait)
}

func exitText(wait error) string {
	if exit, ok := errors.AsType[*exec.ExitError](wait); ok {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == syscall.SIGSYS {
			return fmt.Sprintf("%v, by its seccomp filter", exit)
		}
	}
	if wait == nil {
		return "exit status 0"
	}
	return wait.Error()
}

// shutdownReason returns the reason of a SHUTDOWN event, or "".
func shutdownReason(e Event) string {
	var data struct {
		Reason string `json:"reason"`
	}
	if e.Name != "SHUTDOWN" || json.Unmarshal(e.Data, &data) != nil {
		return ""
	}
	return data.Reason
}
