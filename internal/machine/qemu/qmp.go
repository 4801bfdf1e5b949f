package qemu

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"gondolin/internal/machine"
)

// The QEMU Machine Protocol (docs/interop/qmp-spec.txt): one JSON object a line in
// both directions. The guest cannot reach it, but a guest may have taken over
// QEMU, so what comes from there is bounded and anything out of order is an error.

// Event is an asynchronous message from QEMU.
type Event struct {
	// Name is such as SHUTDOWN, STOP, RESUME or GUEST_PANICKED.
	Name string
	// Data is the event's JSON object, or nil.
	Data json.RawMessage
}

// CommandError is QEMU's refusal of a command.
type CommandError struct {
	Command string
	Class   string // such as GenericError
	Desc    string // sanitised, one line
}

// Error names the command and gives QEMU's reason.
func (e *CommandError) Error() string {
	return fmt.Sprintf("cannot execute %s: %s", e.Command, e.Desc)
}

// message is one line from QEMU: exactly one of greeting, event, result and refusal.
type message struct {
	greeting bool
	event    *Event
	id       uint64
	result   json.RawMessage // set if the command worked
	refusal  *CommandError   // without the command
}

var (
	errLineTooLong = fmt.Errorf("a line is longer than %d bytes", maxMonitorMessage)
	errNotObject   = errors.New("a line is not one JSON object")
	errMixed       = errors.New("a message is not one of greeting, event, return and error")
	errNoID        = errors.New("an answer has no id")
)

// newLineReader returns a reader for readMessage. Its buffer bounds a line.
func newLineReader(conn interface{ Read([]byte) (int, error) }) *bufio.Scanner {
	s := bufio.NewScanner(conn)
	s.Buffer(make([]byte, 0, 4096), maxMonitorMessage)
	return s
}

// readMessage returns the next message, or nil and the stream's end.
func readMessage(lines *bufio.Scanner) (*message, error) {
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		return decodeMessage(line)
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return nil, errLineTooLong
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return nil, nil
}

func decodeMessage(line []byte) (*message, error) {
	var raw struct {
		QMP    json.RawMessage `json:"QMP"`
		Event  *string         `json:"event"`
		Data   json.RawMessage `json:"data"`
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Class string `json:"class"`
			Desc  string `json:"desc"`
		} `json:"error"`
		ID *uint64 `json:"id"`
	}
	if line[0] != '{' || json.Unmarshal(line, &raw) != nil {
		return nil, errNotObject
	}
	m := &message{greeting: raw.QMP != nil}
	kinds := 0
	for _, present := range []bool{m.greeting, raw.Event != nil, raw.Return != nil, raw.Error != nil} {
		if present {
			kinds++
		}
	}
	if kinds != 1 {
		return nil, errMixed
	}
	switch {
	case raw.Event != nil:
		m.event = &Event{Name: shorten(*raw.Event), Data: raw.Data}
		return m, nil
	case m.greeting:
		return m, nil
	case raw.Error != nil:
		m.refusal = &CommandError{Class: shorten(raw.Error.Class), Desc: shorten(raw.Error.Desc)}
	default:
		m.result = raw.Return
	}
	if raw.ID == nil {
		// QEMU leaves the id out only when it could not parse what it got.
		return nil, fmt.Errorf("%w: %s", errNoID, refusalText(m.refusal))
	}
	m.id = *raw.ID
	return m, nil
}

func refusalText(e *CommandError) string {
	if e == nil {
		return "a return"
	}
	return e.Desc
}

// shorten makes one bounded, printable line of QEMU's text.
func shorten(text string) string {
	if len(text) > maxMonitorText {
		text = text[:maxMonitorText]
	}
	clean := bytes.Fields([]byte(machine.Sanitize([]byte(text))))
	return string(bytes.Join(clean, []byte(" ")))
}
