package gondolin

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"gondolin/internal/control"
	"gondolin/internal/wire"
)

const (
	// DefaultGrace is how long a cancelled command may take to end by itself.
	DefaultGrace = 2 * time.Second
	// DefaultWaitDelay is how long output may stay open after a command's end.
	DefaultWaitDelay = time.Second
	// MaxOutput is how many bytes Output and CombinedOutput hold. A guest writes
	// more than any host has memory for, if it is let.
	MaxOutput = 256 << 20
	// cancelMargin is what a guest gets beyond the grace to report the end of a
	// command that was killed, before Wait gives up on it.
	cancelMargin = 5 * time.Second
	// lastWrite is how long a Write of the caller's that is under way when Wait
	// gives up may take to return.
	lastWrite = time.Second
	// keptStderr is how much of stderr an error of Output holds, in bytes.
	keptStderr = 64 << 10
)

// Cmd is a command in the guest, in the shape of os/exec.Cmd. It is made by
// [VM.Command] and cannot be reused.
type Cmd struct {
	// Args is the command line, the program first. A program without a slash is
	// searched in PATH.
	Args []string
	// Env holds "K=V" entries over the VM's environment; of one name the last wins.
	Env []string
	// Dir is the working directory in the guest. Empty: the user's home.
	Dir string
	// User is NAME, UID, NAME:GROUP or UID:GID, looked up in the guest. Empty: root.
	User string
	// TTY gives the command a controlling terminal of this size. Stderr then comes
	// with Stdout.
	TTY *Size

	// Stdin is what the command reads. nil: nothing, at once. An error of its Read
	// ends the input and is returned by Wait. Wait does not wait for a Read that
	// blocks after the command has ended.
	Stdin io.Reader
	// Stdout and Stderr receive the output. nil: it is discarded. If they are
	// the same comparable value, the command gets one descriptor for both. A Write
	// that blocks stops the command, nothing else.
	Stdout io.Writer
	Stderr io.Writer

	// Grace is how long after SIGTERM a command whose context is done is killed. 0:
	// [DefaultGrace]; negative: at once.
	Grace time.Duration
	// WaitDelay is how long, after the command's own end, Wait waits for processes
	// it left behind that hold its output open. 0: [DefaultWaitDelay], and output
	// that is cut off is not an error; otherwise Wait returns exec.ErrWaitDelay then.
	WaitDelay time.Duration

	vm        *VM
	ctx       context.Context //nolint:containedctx // as in os/exec: the command's, from Command to Wait
	process   *control.Process
	pipes     []io.Closer // our ends, closed by Wait
	stdinPipe io.Closer   // the one of them that is Stdin, if any
	waited    bool
	copied    chan error // one for each output
	input     chan error // what Stdin's Read failed with, if it did
}

// Size is a terminal's size in characters.
type Size struct{ Rows, Cols uint16 }

// Command returns a command that runs name with args. When ctx is done the
// command's process group gets SIGTERM, and once the command has ended, after
// Grace at the latest, every process it started SIGKILL. Nothing runs before Start.
func (vm *VM) Command(ctx context.Context, name string, args ...string) *Cmd {
	return &Cmd{Args: append([]string{name}, args...), vm: vm, ctx: ctx}
}

// Shell returns a command that runs a script in a login shell.
func (vm *VM) Shell(ctx context.Context, script string) *Cmd {
	return vm.Command(ctx, "/bin/sh", "-lc", script)
}

// String returns the command line, for people.
func (c *Cmd) String() string { return strings.Join(c.Args, " ") }

// Run starts the command and waits for its end.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the command and returns what it wrote to stdout, [MaxOutput] bytes
// at most: a command that writes more is an error. The error of a command that
// failed holds what it wrote to stderr.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("cannot collect output: Stdout is set")
	}
	stdout, stderr := collector{limit: MaxOutput}, tail{limit: keptStderr}
	c.Stdout = &stdout
	if c.Stderr == nil && c.TTY == nil {
		c.Stderr = &stderr
	}
	err := stdout.explain(c.Run())
	if exit, ok := errors.AsType[*ExitError](err); ok {
		exit.Stderr = stderr.bytes
	}
	return stdout.held.Bytes(), err
}

// CombinedOutput runs the command and returns what it wrote to stdout and
// stderr, [MaxOutput] bytes at most.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errors.New("cannot collect output: Stdout or Stderr is set")
	}
	both := collector{limit: MaxOutput}
	c.Stdout, c.Stderr = &both, &both
	err := both.explain(c.Run())
	return both.held.Bytes(), err
}

// Start starts the command. An error that says the program cannot be run is a
// [*StartError].
func (c *Cmd) Start() error {
	if c.process != nil {
		return errors.New("cannot start a command twice")
	}
	req, err := c.request()
	if err != nil {
		c.closePipes()
		return err
	}
	if err := c.vm.begin(c.ctx); err != nil {
		c.closePipes()
		return err
	}
	p, err := c.vm.control.Start(c.ctx, req)
	if err != nil {
		c.vm.finish()
		c.closePipes()
		return c.vm.startError(err)
	}
	c.process = p
	c.connect()
	return nil
}

// request describes the command to the guest.
func (c *Cmd) request() (wire.Exec, error) {
	req := wire.Exec{
		Dir: []byte(c.Dir), User: c.User, WaitDelay: c.waitDelay(),
		Joined: c.joined(),
	}
	if len(c.Args) == 0 || c.Args[0] == "" {
		return req, errors.New("cannot run: no program named")
	}
	for _, s := range c.Args {
		req.Args = append(req.Args, []byte(s))
	}
	for _, s := range c.Env {
		if !strings.Contains(s, "=") {
			return req, fmt.Errorf("cannot run %q: environment entry %q is not K=V", c.Args[0], s)
		}
		req.Env = append(req.Env, []byte(s))
	}
	if c.TTY != nil {
		if c.Stderr != nil && !c.joined() {
			return req, fmt.Errorf("cannot run %q: with a terminal stderr comes with stdout", c.Args[0])
		}
		req.TTY = &wire.Size{Rows: c.TTY.Rows, Cols: c.TTY.Cols}
		req.Streams = wire.Stdin | wire.Stdout
		req.Joined = false
		return req, nil
	}
	if c.Stdin != nil {
		req.Streams |= wire.Stdin
	}
	if c.Stdout != nil {
		req.Streams |= wire.Stdout
	}
	if c.Stderr != nil && !req.Joined {
		req.Streams |= wire.Stderr
	}
	return req, nil
}

func (c *Cmd) waitDelay() time.Duration {
	switch {
	case c.WaitDelay == 0:
		return DefaultWaitDelay
	case c.WaitDelay < 0:
		return 0
	default:
		return min(c.WaitDelay, wire.MaxWaitDelay)
	}
}

// joined reports whether stdout and stderr go to the same place.
func (c *Cmd) joined() (same bool) {
	defer func() {
		if recover() != nil { // comparing values that are not comparable panics
			same = false
		}
	}()
	return c.Stdout != nil && c.Stdout == c.Stderr
}

// connect starts the copying between the process and Stdin, Stdout and Stderr.
func (c *Cmd) connect() {
	outputs := []struct {
		from *control.Output
		to   io.Writer
	}{{c.process.Stdout, c.Stdout}, {c.process.Stderr, c.Stderr}}
	c.copied, c.input = make(chan error, len(outputs)), make(chan error, 1)
	for _, o := range outputs {
		if o.from == nil {
			c.copied <- nil
			continue
		}
		go c.copyOutput(o.to, o.from)
	}
	if c.process.Stdin != nil {
		go c.copyInput()
	}
}

func (c *Cmd) copyOutput(to io.Writer, from *control.Output) {
	if to == nil {
		to = io.Discard
	}
	// By Write only: a ReadFrom may touch what the caller reads after Wait, though
	// the Read in it ended without data.
	_, err := io.Copy(struct{ io.Writer }{to}, from)
	if pipe, ok := to.(closing); ok {
		err = pipe.end(err)
	}
	from.Close() // a writer that failed ends the output, as a broken pipe does
	c.copied <- err
}

// copyInput ends with Stdin, or with the process: what Stdin's Read then still
// returns is lost.
func (c *Cmd) copyInput() {
	defer c.process.Stdin.Close()
	if c.Stdin == nil {
		return
	}
	from := &source{Reader: c.Stdin}
	_, _ = io.Copy(c.process.Stdin, from)
	if from.err != nil {
		c.input <- from.err // before the command can see the end of its input
	}
	if c.stdinPipe != nil {
		c.stdinPipe.Close() // who writes to a pipe nobody reads any more gets an error
	}
}

// source keeps the error of a reader apart from that of the writer it is copied to.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = fmt.Errorf("cannot read Stdin: %w", err)
	}
	return n, err
}

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

// Signal sends a signal, Linux numbering, to the command's process group.
func (c *Cmd) Signal(sig syscall.Signal) error {
	if c.process == nil {
		return errors.New("cannot signal: the command was not started")
	}
	return c.process.Signal(int(sig))
}

// Resize sets the size of the command's terminal.
func (c *Cmd) Resize(size Size) error {
	if c.process == nil || c.TTY == nil {
		return errors.New("cannot resize: the command has no terminal")
	}
	return c.process.Resize(wire.Size{Rows: size.Rows, Cols: size.Cols})
}

// PID returns the command's process id in the guest, 0 before Start.
func (c *Cmd) PID() int {
	if c.process == nil {
		return 0
	}
	return c.process.PID
}

// StdinPipe returns a pipe that becomes the command's Stdin. Close it to end the input.
func (c *Cmd) StdinPipe() (io.WriteCloser, error) {
	if c.Stdin != nil || c.process != nil {
		return nil, errors.New("cannot make a pipe: Stdin is set or the command was started")
	}
	r, w := io.Pipe()
	c.Stdin, c.stdinPipe = r, r
	c.pipes = append(c.pipes, r)
	return w, nil
}

// StdoutPipe returns a pipe with the command's stdout. Read it to the end, or
// close it, before Wait.
func (c *Cmd) StdoutPipe() (io.ReadCloser, error) { return c.outputPipe(&c.Stdout, "Stdout") }

// StderrPipe returns a pipe with the command's stderr. Read it to the end, or
// close it, before Wait.
func (c *Cmd) StderrPipe() (io.ReadCloser, error) { return c.outputPipe(&c.Stderr, "Stderr") }

func (c *Cmd) outputPipe(to *io.Writer, name string) (io.ReadCloser, error) {
	if *to != nil || c.process != nil {
		return nil, fmt.Errorf("cannot make a pipe: %s is set or the command was started", name)
	}
	r, w := io.Pipe()
	*to = closing{w}
	c.pipes = append(c.pipes, w)
	return r, nil
}

// closing is the writing end of an output pipe, closed at the end of the output.
type closing struct{ *io.PipeWriter }

// end passes on the end of the output, or why it ended early. A reader that has
// left has seen what it wanted: that is no error.
func (c closing) end(err error) error {
	if errors.Is(err, io.ErrClosedPipe) {
		err = nil
	}
	_ = c.CloseWithError(err) // never fails
	return err
}

// errTooMuch is the end of output that is longer than a collector takes.
var errTooMuch = fmt.Errorf("cannot collect more than %d MiB of output", MaxOutput>>20)

// collector holds the first limit bytes written to it.
type collector struct {
	held     bytes.Buffer
	limit    int
	overflow bool
}

// Write fails once the limit is reached.
func (c *collector) Write(p []byte) (int, error) {
	if room := c.limit - c.held.Len(); len(p) > room {
		c.overflow = true
		n, _ := c.held.Write(p[:room]) // never fails
		return n, errTooMuch
	}
	return c.held.Write(p)
}

// explain puts the overflow before what became of the command because of it.
func (c *collector) explain(err error) error {
	if !c.overflow || errors.Is(err, errTooMuch) {
		return err
	}
	return fmt.Errorf("%w: %w", errTooMuch, err)
}

// tail keeps the last limit bytes written to it.
type tail struct {
	bytes []byte
	limit int
}

func (t *tail) Write(p []byte) (int, error) {
	t.bytes = append(t.bytes, p...)
	if over := len(t.bytes) - t.limit; over > 0 {
		t.bytes = append(t.bytes[:0], t.bytes[over:]...)
	}
	return len(p), nil
}
