package gondolin

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"

	"gondolin/internal/machine"
	"gondolin/internal/wire"
)

// ExitError is returned for a command that ran and failed.
type ExitError struct {
	// Signal ended the command, Linux numbering; 0 if it exited.
	Signal syscall.Signal
	// Stderr is the end of what the command wrote there, from [Cmd.Output] only.
	Stderr []byte

	code int
}

// ExitCode returns what a shell would: the exit code, or 128 and the signal's number.
func (e *ExitError) ExitCode() int { return e.code }

// Error returns "exit status 3" or "signal: killed".
func (e *ExitError) Error() string {
	if e.Signal != 0 {
		return "signal: " + signalName(int(e.Signal))
	}
	return fmt.Sprintf("exit status %d", e.code)
}

// signalNames are Linux's by number (signal(7)), as package syscall there words
// them: on macOS it knows others.
var signalNames = strings.Split("hangup,interrupt,quit,illegal instruction,trace/breakpoint trap,aborted,bus error,"+
	"floating point exception,killed,user defined signal 1,segmentation fault,user defined signal 2,broken pipe,"+
	"alarm clock,terminated,stack fault,child exited,continued,stopped (signal),stopped,stopped (tty input),"+
	"stopped (tty output),urgent I/O condition,CPU time limit exceeded,file size limit exceeded,virtual timer expired,"+
	"profiling timer expired,window changed,I/O possible,power failure,bad system call", ",")

func signalName(number int) string {
	if number < 1 || number > len(signalNames) {
		return fmt.Sprintf("signal %d", number)
	}
	return signalNames[number-1]
}

// StartError is returned for a command that could not be run.
type StartError struct {
	code   int
	reason wire.Reason
	text   string
}

// ExitCode returns what a shell would: 127 if the program or the directory does
// not exist, 126 for anything else.
func (e *StartError) ExitCode() int { return e.code }

// Error names the program and says why it cannot be run.
func (e *StartError) Error() string { return e.text }

// Is reports a missing program as exec.ErrNotFound.
func (e *StartError) Is(target error) bool {
	return target == exec.ErrNotFound && e.reason == wire.ReasonNotFound
}

// startError makes a guest's refusal a StartError.
func (vm *VM) startError(err error) error {
	var failed *wire.Failed
	if !errors.As(err, &failed) {
		return vm.failure(err)
	}
	code := 126
	if failed.Reason == wire.ReasonNotFound || failed.Reason == wire.ReasonDirectory {
		code = 127
	}
	return &StartError{code: code, reason: failed.Reason, text: machine.Sanitize([]byte(failed.Text))}
}

// consoleError adds the console's last lines to why a guest did not start.
func consoleError(err error, console []byte) error {
	lines := machine.LastLines(machine.Sanitize(console), consoleLines)
	if len(lines) == 0 {
		return err
	}
	return fmt.Errorf("%w\nthe guest's console ended with:\n  %s", err, strings.Join(lines, "\n  "))
}

// bootFailure ends a machine whose guest did not come up because of err, and says
// why: the machine's own reason if it has one.
func bootFailure(m machine.Machine, err error) error {
	if err == nil {
		return nil
	}
	m.Close()
	if merr := m.Err(); merr != nil {
		return merr
	}
	return consoleError(err, m.Console())
}

// consoleLines is how much of the console an error shows.
const consoleLines = 12
