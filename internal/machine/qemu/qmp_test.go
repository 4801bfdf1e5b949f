package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"gondolin/internal/testenv"
)

func TestDecodeMessage(t *testing.T) {
	for line, want := range map[string]string{
		`{"QMP":{"version":{}}}`:                                  "greeting",
		`{"event":"STOP","timestamp":{}}`:                         "event STOP",
		`{"return":{},"id":7}`:                                    "return 7 {}",
		`{"return":[1],"id":7}`:                                   "return 7 [1]",
		`{"error":{"class":"A","desc":"b\u001b[2Jc\nd"},"id":9}`:  "error 9 A: bc d",
		`{"error":{"class":"GenericError","desc":"Parse error"}}`: "!" + errNoID.Error(),
		`{"return":{}}`:                                           "!" + errNoID.Error(),
		`{"return":{},"id":-1}`:                                   "!" + errNotObject.Error(),
		`{"return":{},"id":"7"}`:                                  "!" + errNotObject.Error(),
		`{"return":{},"error":{"class":"A","desc":"b"},"id":1}`:   "!" + errMixed.Error(),
		`{"QMP":{},"event":"X"}`:                                  "!" + errMixed.Error(),
		`{}`:                                                      "!" + errMixed.Error(),
		`[]`:                                                      "!" + errNotObject.Error(),
		`null`:                                                    "!" + errNotObject.Error(),
		`{"return":{},"id":1}x`:                                   "!" + errNotObject.Error(),
		`{"return":` + strings.Repeat("[", 20_000) + `,"id":1}`: "!" + errNotObject.Error(),
	} {
		got := describeMessage(decodeMessage([]byte(line)))
		if !strings.HasPrefix(got, want) {
			t.Errorf("%.80s: got %q, want %q", line, got, want)
		}
	}
}

func describeMessage(m *message, err error) string {
	switch {
	case err != nil:
		return "!" + err.Error()
	case m.greeting:
		return "greeting"
	case m.event != nil:
		return "event " + m.event.Name
	case m.refusal != nil:
		return fmt.Sprintf("error %d %s: %s", m.id, m.refusal.Class, m.refusal.Desc)
	}
	return fmt.Sprintf("return %d %s", m.id, m.result)
}

func FuzzReadMessage(f *testing.F) {
	f.Add([]byte(`{"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7}},"capabilities":["oob"]}}` + "\r\n" +
		`{"return":{},"id":1}` + "\r\n" + `{"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}` + "\r\n"))
	f.Add([]byte(`{"error":{"class":"GenericError","desc":"no"},"id":18446744073709551615}` + "\n{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		lines := newLineReader(bytes.NewReader(data))
		for {
			m, err := readMessage(lines)
			if err != nil || m == nil {
				return
			}
			if m.event != nil {
				_ = shutdownReason(*m.event)
				if len(m.event.Name) > 4*maxMonitorText || hasControl(m.event.Name) {
					t.Fatalf("event name %q", m.event.Name)
				}
			}
			if m.refusal != nil && (len(m.refusal.Desc) > 4*maxMonitorText || hasControl(m.refusal.Desc)) {
				t.Fatalf("description %q", m.refusal.Desc)
			}
		}
	})
}

// fakeQEMU plays the far end of a monitor: it answers each line with reply.
func fakeQEMU(t *testing.T, greeting string, reply func(command string, id uint64) string) (*monitor, <-chan error) {
	t.Helper()
	ours, theirs := net.Pipe()
	m := newMonitor(ours, func(Event) {})
	ended := make(chan error, 1)
	go func() { ended <- m.run() }()
	go playQEMU(theirs, greeting, reply)
	t.Cleanup(func() {
		ours.Close()
		theirs.Close()
	})
	return m, ended
}

func playQEMU(conn net.Conn, greeting string, reply func(string, uint64) string) {
	defer conn.Close()
	if _, err := io.WriteString(conn, greeting); err != nil {
		return
	}
	in := json.NewDecoder(conn)
	for {
		var command struct {
			Execute string
			ID      uint64
		}
		if in.Decode(&command) != nil {
			return
		}
		text := reply(command.Execute, command.ID)
		if text == "" {
			return
		}
		if _, err := io.WriteString(conn, text); err != nil {
			return
		}
	}
}

const greeting = `{"QMP":{}}` + "\r\n"

func TestMonitor(t *testing.T) {
	testenv.CheckLeaks(t)
	m, _ := fakeQEMU(t, greeting, func(command string, id uint64) string {
		if command == "bad" {
			return fmt.Sprintf(`{"error":{"class":"CommandNotFound","desc":"no %s"},"id":%d}`+"\r\n", command, id)
		}
		return fmt.Sprintf(`{"event":"RESUME"}`+"\r\n"+`{"return":{"is":%q},"id":%d}`+"\r\n", command, id)
	})
	if err := m.negotiate(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	got, err := m.execute(t.Context(), "query-status", map[string]int{"a": 1})
	if err != nil || string(got) != `{"is":"query-status"}` {
		t.Errorf("got %s, %v", got, err)
	}
	_, err = m.execute(t.Context(), "bad", nil)
	var refusal *CommandError
	if !errors.As(err, &refusal) || refusal.Command != "bad" || refusal.Class != "CommandNotFound" {
		t.Errorf("got %v, want a CommandError", err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.execute(canceled, "late", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	if _, err := m.execute(t.Context(), "after", nil); err != nil {
		t.Errorf("the command after an abandoned one: %v", err)
	}
}

func TestMonitorEndsOnNonsense(t *testing.T) {
	testenv.CheckLeaks(t)
	for name, tc := range map[string]struct{ greeting, reply string }{
		"no greeting":     {`{"event":"STOP"}` + "\n", ""},
		"two greetings":   {greeting + greeting, ""},
		"other answer":    {greeting, `{"return":{},"id":999}` + "\n"},
		"not JSON":        {greeting, "hello\n"},
		"no id":           {greeting, `{"return":{}}` + "\n"},
		"endless line":    {greeting, strings.Repeat("x", maxMonitorMessage+1)},
		"answer it twice": {greeting, `{"return":{},"id":1}` + "\n" + `{"return":{},"id":1}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			m, ended := fakeQEMU(t, tc.greeting, func(string, uint64) string { return tc.reply })
			_, _ = m.execute(t.Context(), "qmp_capabilities", nil) // its outcome depends on the nonsense
			if err := <-ended; err == nil || !strings.Contains(err.Error(), "broke") {
				t.Errorf("run ended with %v", err)
			}
			if _, err := m.execute(t.Context(), "query-status", nil); err == nil {
				t.Error("a command after the end works")
			}
		})
	}
}

func TestMonitorHangUpFailsPending(t *testing.T) {
	testenv.CheckLeaks(t)
	m, ended := fakeQEMU(t, greeting, func(string, uint64) string { return "" })
	if _, err := m.execute(t.Context(), "stop", nil); err == nil {
		t.Error("a command without an answer works")
	}
	if err := <-ended; err != nil {
		t.Errorf("hanging up is not breaking the protocol: %v", err)
	}
}

func TestMonitorBoundsPending(t *testing.T) {
	testenv.CheckLeaks(t)
	m := newMonitor(nil, nil)
	for range maxPending {
		if _, _, err := m.enlist(); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := m.enlist(); err == nil {
		t.Error("one command more than the limit is taken")
	}
}
