package gondolin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
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
	number    uint64      // in the audit
	began     time.Time   // when it was recorded there
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
		return c.vm.failure(err)
	}
	p, err := c.launch(req)
	if err != nil {
		c.vm.finish()
		c.closePipes()
		return err
	}
	c.process = p
	c.connect()
	return nil
}

// launch has the guest start the command, and both recorded.
func (c *Cmd) launch(req wire.Exec) (*control.Process, error) {
	if err := c.auditStart(); err != nil {
		return nil, err
	}
	p, err := c.vm.control.Start(c.ctx, req)
	if err != nil {
		err = c.vm.startError(err)
		c.auditEnd(err)
		return nil, err
	}
	return p, nil
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
