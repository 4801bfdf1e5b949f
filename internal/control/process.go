package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"gondolin/internal/rpc"
	"gondolin/internal/wire"
)

// sendTimeout ends a Signal, Resize or Terminate that the guest does not read.
// An agent that works reads them at once.
const sendTimeout = 10 * time.Second

// Process is a command that has started. Stdin, Stdout and Stderr are nil
// where the request named no stream.
type Process struct {
	PID    int
	Stdin  *Input
	Stdout *Output
	Stderr *Output

	client *Client
	ctl    *rpc.Stream
	sendMu sync.Mutex // serialises messages on ctl

	exited chan struct{} // closed once exit or err is set
	done   chan struct{} // closed once no more output follows
	exit   wire.Exited
	cut    bool
	err    error // why there is no exit
}

// Start starts a command. The caller must close the outputs and call Release. When ctx ends first the command is killed and ctx's cause returned;
// after Start has returned ctx has no effect.
func (c *Client) Start(ctx context.Context, req wire.Exec) (*Process, error) {
	req.ID = newID()
	ctl, err := c.host.Open(ctx, &req)
	if err != nil {
		return nil, err
	}
	p := &Process{client: c, ctl: ctl, exited: make(chan struct{}), done: make(chan struct{})}
	if err := p.attach(ctx, &req); err != nil {
		p.discard()
		return nil, err
	}
	if err := p.awaitStart(ctx); err != nil {
		p.discard()
		return nil, err
	}
	go p.follow()
	return p, nil
}

// attach opens the data streams.
func (p *Process) attach(ctx context.Context, req *wire.Exec) error {
	open := func(d wire.Descriptors) (*rpc.Stream, error) {
		if req.Streams&d == 0 {
			return nil, nil
		}
		return p.client.host.Open(ctx, &wire.Attach{ID: req.ID, Descriptor: d})
	}
	in, err := open(wire.Stdin)
	if err != nil {
		return err
	}
	if in != nil {
		p.Stdin = newInput(in)
	}
	for d, out := range map[wire.Descriptors]**Output{wire.Stdout: &p.Stdout, wire.Stderr: &p.Stderr} {
		s, err := open(d)
		if err != nil {
			return err
		}
		if s != nil {
			*out = &Output{stream: s, client: p.client}
		}
	}
	return nil
}

func (p *Process) awaitStart(ctx context.Context) error {
	m, err := p.client.read(ctx, p.ctl)
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case *wire.Started:
		p.PID = m.PID
		return nil
	case *wire.Failed:
		return m
	default:
		return fmt.Errorf("%w: %T instead of Started", wire.ErrProtocol, m)
	}
}

// follow waits for the command's end.
func (p *Process) follow() {
	defer close(p.done)
	exit, err := expect[*wire.Exited](p)
	if err != nil {
		p.err = err
		close(p.exited)
		return
	}
	p.exit = *exit
	close(p.exited)
	if drained, err := expect[*wire.Drained](p); err == nil {
		p.cut = drained.Cut
	}
}

func expect[T wire.Message](p *Process) (T, error) {
	var none T
	m, err := wire.Read(p.ctl, wire.ToHost)
	if err != nil {
		return none, p.client.cause(err)
	}
	if got, ok := m.(T); ok {
		return got, nil
	}
	return none, fmt.Errorf("%w: %T instead of %T", wire.ErrProtocol, m, none)
}

// Exited is closed when the command has exited or the channel has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Exit returns how the command ended, once Exited is closed.
func (p *Process) Exit() (wire.Exited, error) { return p.exit, p.err }

// Drained is closed when the guest has said that all output is sent, or nothing more is heard of it.
func (p *Process) Drained() <-chan struct{} { return p.done }

// Cut reports, once Drained is closed, whether other processes of the guest
// still held the output open when it gave up waiting for more.
func (p *Process) Cut() bool { return p.cut }

// Signal sends a signal, Linux numbering, to the command's process group.
func (p *Process) Signal(number int) error { return p.send(&wire.Signal{Number: number}) }

// Resize sets the size of the command's terminal.
func (p *Process) Resize(size wire.Size) error { return p.send(&wire.Resize{Size: size}) }

// Terminate sends SIGTERM to the command's group and, when the command has ended
// but grace later at the latest, SIGKILL to all of its processes.
func (p *Process) Terminate(grace time.Duration) error { return p.send(&wire.Terminate{Grace: grace}) }

// ErrExited is returned for what comes after the command has exited.
var ErrExited = errors.New("process has exited")

func (p *Process) send(m wire.Message) error {
	p.sendMu.Lock()
	defer p.sendMu.Unlock()
	select {
	case <-p.exited:
		return ErrExited
	default:
	}
	p.ctl.SetWriteDeadline(time.Now().Add(sendTimeout))
	return p.client.cause(wire.Write(p.ctl, m))
}

// Release gives up the exec stream and the input, without blocking: a command
// that still runs is killed.
func (p *Process) Release() {
	p.ctl.Abort()
	if p.Stdin != nil {
		p.Stdin.stream.Abort()
	}
}

// discard undoes a start that failed.
func (p *Process) discard() {
	p.Release()
	for _, out := range []*Output{p.Stdout, p.Stderr} {
		if out != nil {
			out.Close()
		}
	}
}

// Input is a command's standard input.
type Input struct {
	stream *rpc.Stream
	gone   chan struct{} // closed when the guest stopped reading
}

func newInput(s *rpc.Stream) *Input {
	in := &Input{stream: s, gone: make(chan struct{})}
	go in.watch()
	return in
}

// watch notices that the guest stopped reading, which ends a write under way.
func (in *Input) watch() {
	_, _ = io.Copy(io.Discard, in.stream)
	close(in.gone)
	in.Close()
}

// Write blocks while the command does not read. It returns io.ErrClosedPipe
// once the command has stopped reading.
func (in *Input) Write(p []byte) (int, error) {
	n, err := in.stream.Write(p)
	if err != nil {
		return n, io.ErrClosedPipe
	}
	return n, nil
}

// Gone is closed when the command has stopped reading, or the channel has ended.
func (in *Input) Gone() <-chan struct{} { return in.gone }

// Close ends the input. It is idempotent, and blocks while the guest does not
// take bytes from its port.
func (in *Input) Close() error { return in.stream.Close() }

// Output is one of a command's outputs.
type Output struct {
	stream *rpc.Stream
	client *Client
}

// Read returns io.EOF at the end of output, [ErrClosed] when the channel ended
// before it, and net.ErrClosed after Close.
func (o *Output) Read(p []byte) (int, error) {
	n, err := o.stream.Read(p)
	if err == nil || n > 0 {
		return n, nil
	}
	select {
	case <-o.client.Done():
		return 0, ErrClosed
	default:
		return 0, err
	}
}

// Close stops reading, a Read under way included: the command then sees a broken
// pipe. It does not block, and is idempotent.
func (o *Output) Close() { o.stream.Abort() }
