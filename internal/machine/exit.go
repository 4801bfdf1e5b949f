package machine

import (
	"strings"
)

// ExitError says that a machine ended although nobody closed it.
type ExitError struct {
	// Reason is what happened, such as "guest powered off" or "qemu: signal: killed".
	Reason string
	// Cause tells the kinds of end apart.
	Cause Cause
	// Stderr is the last part of what the machine's process wrote, sanitised; may be empty.
	Stderr string
	// Console is the last part of the guest's console, sanitised; may be empty. It
	// is text chosen by the guest.
	Console string
}

// Cause is why a machine ended.
type Cause int

// The causes.
const (
	// CauseUnknown is the zero value: the machine's process ended, and nothing else is known.
	CauseUnknown Cause = iota
	// CauseGuest means that the guest powered off or rebooted.
	CauseGuest
	// CausePanic means that the guest's kernel panicked.
	CausePanic
	// CauseStart means that the machine never ran: its process refused its arguments or its files.
	CauseStart
	// CauseHost means that something on the host ended it: a signal, a limit.
	CauseHost
)

// String returns a word for logs.
func (c Cause) String() string {
	switch c {
	case CauseGuest:
		return "guest"
	case CausePanic:
		return "panic"
	case CauseStart:
		return "start"
	case CauseHost:
		return "host"
	default:
		return "unknown"
	}
}

// Error returns the reason, followed by the last lines of both outputs, indented.
func (e *ExitError) Error() string {
	var b strings.Builder
	b.WriteString("machine ended: ")
	b.WriteString(e.Reason)
	quote(&b, "its process said", e.Stderr)
	quote(&b, "its console ended with", e.Console)
	return b.String()
}

func quote(b *strings.Builder, what, text string) {
	lines := LastLines(text, quotedLines)
	if len(lines) == 0 {
		return
	}
	b.WriteString("\n" + what + ":")
	for _, l := range lines {
		b.WriteString("\n  " + l)
	}
}
