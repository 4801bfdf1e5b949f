package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// monitor is the host's end of QMP. run reads; any goroutine may execute.
type monitor struct {
	conn  net.Conn
	ready chan struct{}  // closed when QEMU has greeted
	event func(Event)    // called by run, one at a time
	lines *bufio.Scanner // used by run only

	writing sync.Mutex // one command at a time on the wire; taken before mu

	mu      sync.Mutex // guards the rest
	lastID  uint64
	pending map[uint64]chan<- *message // each has room for its one answer
	ended   error                      // why no more answers come; nil while they do
}

var errMonitorClosed = errors.New("the monitor's connection is closed")

func newMonitor(conn net.Conn, event func(Event)) *monitor {
	return &monitor{
		conn: conn, ready: make(chan struct{}), event: event,
		lines:   newLineReader(conn),
		pending: map[uint64]chan<- *message{},
	}
}

// run reads until QEMU hangs up, then returns nil, or until QEMU breaks the
// protocol. Either way every pending command has failed when it returns.
func (m *monitor) run() error {
	err := m.read()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = errMonitorClosed
	if err != nil {
		m.ended = err
	}
	for id, answer := range m.pending {
		close(answer)
		delete(m.pending, id)
	}
	return err
}

func (m *monitor) read() error {
	greeted := false
	for {
		msg, err := readMessage(m.lines)
		var hungUp net.Error
		switch {
		case errors.Is(err, net.ErrClosed) || errors.As(err, &hungUp) || err == nil && msg == nil:
			return nil // hung up, or reset because it died with a command unread
		case err != nil:
			return fmt.Errorf("qemu broke its monitor's protocol: %w", err)
		case msg.greeting == greeted:
			return errors.New("qemu broke its monitor's protocol: not one greeting, first")
		case msg.greeting:
			greeted = true
			close(m.ready)
		case msg.event != nil:
			m.event(*msg.event)
		default:
			if err := m.answer(msg); err != nil {
				return err
			}
		}
	}
}

func (m *monitor) answer(msg *message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	waiting, ok := m.pending[msg.id]
	if !ok {
		return fmt.Errorf("qemu broke its monitor's protocol: an answer to command %d, which is not pending", msg.id)
	}
	delete(m.pending, msg.id)
	waiting <- msg
	return nil
}

// negotiate waits for the greeting and enters command mode.
func (m *monitor) negotiate(ctx context.Context, gone <-chan struct{}) error {
	select {
	case <-m.ready:
	case <-gone:
		return errMonitorClosed
	case <-ctx.Done():
		return fmt.Errorf("cannot reach qemu's monitor: %w", context.Cause(ctx))
	}
	_, err := m.execute(ctx, "qmp_capabilities", nil)
	return err
}

// execute sends one command and waits for its answer. A command whose wait ends
// early stays pending: its answer is dropped when it comes.
func (m *monitor) execute(ctx context.Context, command string, arguments any) (json.RawMessage, error) {
	return m.executeWith(ctx, command, arguments, nil)
}

// executeWith also passes a descriptor (unix(7), SCM_RIGHTS), which QEMU gets a
// copy of; nil passes none.
func (m *monitor) executeWith(ctx context.Context, command string, arguments any, file *os.File) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, monitorDeadline)
	defer cancel()
	answer, err := m.send(ctx, command, arguments, file)
	if err != nil {
		return nil, fmt.Errorf("cannot execute %s: %w", command, err)
	}
	select {
	case msg, ok := <-answer:
		if !ok {
			return nil, fmt.Errorf("cannot execute %s: %w", command, m.endedBy())
		}
		if msg.refusal != nil {
			msg.refusal.Command = command
			return nil, msg.refusal
		}
		return msg.result, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("cannot execute %s: %w", command, context.Cause(ctx))
	}
}

func (m *monitor) send(ctx context.Context, command string, arguments any, file *os.File) (<-chan *message, error) {
	id, answer, err := m.enlist()
	if err != nil {
		return nil, err
	}
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, arguments, id})
	if err == nil && len(line) > maxMonitorMessage {
		err = fmt.Errorf("its arguments are longer than %d bytes", maxMonitorMessage)
	}
	if err != nil {
		m.delist(id)
		return nil, err
	}
	m.writing.Lock()
	defer m.writing.Unlock()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(monitorDeadline)
	}
	_ = m.conn.SetWriteDeadline(deadline) // fails only on a closed connection, as Write then does
	if err := m.write(append(line, '\n'), file); err != nil {
		m.delist(id)
		m.conn.Close() // half a command may be on the wire: no further one can follow it
		return nil, err
	}
	return answer, nil
}

func (m *monitor) write(line []byte, file *os.File) error {
	if file == nil {
		_, err := m.conn.Write(line)
		return err
	}
	conn, ok := m.conn.(*net.UnixConn)
	if !ok {
		return errors.New("the monitor's connection cannot carry descriptors")
	}
	n, _, err := conn.WriteMsgUnix(line, syscall.UnixRights(int(file.Fd())), nil)
	if err == nil && n < len(line) {
		_, err = conn.Write(line[n:])
	}
	return err
}

func (m *monitor) enlist() (uint64, <-chan *message, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended != nil {
		return 0, nil, m.ended
	}
	if len(m.pending) >= maxPending {
		return 0, nil, fmt.Errorf("%d commands are pending", maxPending)
	}
	m.lastID++
	answer := make(chan *message, 1)
	m.pending[m.lastID] = answer
	return m.lastID, answer, nil
}

func (m *monitor) delist(id uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pending, id)
}

func (m *monitor) endedBy() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ended
}
