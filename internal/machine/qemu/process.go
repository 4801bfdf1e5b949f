package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"gondolin/internal/machine"
	"gondolin/internal/machine/accel"
	"gondolin/internal/machine/jail"
)

// Options are what a Process needs besides its description.
type Options struct {
	// Log gets the command line and events, all at debug level; nil means nobody.
	Log *slog.Logger
	// Event is called with each of QEMU's events, one at a time; it must not block
	// and must not call Execute. Nil means nobody.
	Event func(Event)
	// RequireJail fails the start if a layer of the jail cannot be had, see package
	// jail. Otherwise what can be had is used.
	RequireJail bool
}

// Process is a running QEMU. Make one with Start.
//
// Five goroutines belong to it: wait, the jail's, which has a thread of its own, and one each
// for the monitor, the console and QEMU's standard error. They end with QEMU.
type Process struct {
	machine Machine
	log     *slog.Logger
	onEvent func(Event)
	cmd     *exec.Cmd
	jail    *jail.Jail
	wiring  *wiring
	monitor *monitor
	guard   *guard // nil where the kernel does its work
	console *ring
	stderr  *ring
	done    chan struct{}
	moved   chan string    // the state of each MIGRATION event
	readers sync.WaitGroup // the monitor's and the console's goroutine

	mu       sync.Mutex // guards the rest
	ran      bool       // the monitor has answered
	closed   bool       // Close was called before QEMU ended
	failure  error      // why QEMU had to be killed
	shutdown string     // QEMU's own reason for ending
	err      error      // set before done is closed
}

var _ machine.Machine = (*Process)(nil)

// Start runs m and returns when QEMU has accepted it, which is before its kernel
// has done much. ctx bounds the start only; Close ends the machine. A QEMU that
// does not start is reported with what it said, as a *machine.ExitError, one that
// is not installed as a *MissingError, and a wrong description as a *FieldError.
func Start(ctx context.Context, m Machine, opts Options) (*Process, error) {
	m, err := Complete(ctx, m)
	if err != nil {
		return nil, err
	}
	p := &Process{
		machine: m, log: opts.Log, onEvent: opts.Event,
		console: newRing(consoleBytes), stderr: newRing(stderrBytes),
		done: make(chan struct{}), moved: make(chan string, maxMigrationEvents),
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if err := p.launch(opts); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startDeadline)
	defer cancel()
	if err := p.negotiate(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// Complete fills in what has to be looked up, and the defaults, and checks m. Start
// does it, too.
func Complete(ctx context.Context, m Machine) (Machine, error) {
	if m.Arch == "" {
		m.Arch = Arch(runtime.GOARCH)
	}
	if m.HostOS == "" {
		m.HostOS = runtime.GOOS
	}
	emulated := m.Accel == accel.TCG || m.Accel == ""
	if emulated && m.Arch == AMD64 && m.TSCKHz == 0 {
		m.TSCKHz = hostTSCKHz(ctx)
	}
	m = m.withDefaults()
	if err := m.validate(); err != nil {
		return m, err
	}
	if m.Binary == "" {
		found, err := FindBinary(m.Arch)
		m.Binary = found
		return m, err
	}
	return m, checkBinary(m.Binary, m.Arch)
}

// launch starts the process and the goroutines. If it fails, nothing is left.
func (p *Process) launch(opts Options) (err error) {
	if p.jail, err = newJail(p.machine, opts); err != nil {
		return err
	}
	p.wiring, err = newWiring(p.machine, p.jail)
	if err != nil {
		return errors.Join(err, p.jail.Close())
	}
	defer p.wiring.closeTheirs()
	args, err := Args(p.machine, p.wiring.fds)
	if err != nil {
		p.wiring.closeOurs()
		return errors.Join(err, p.jail.Close())
	}
	p.cmd = p.command(args)
	p.monitor = newMonitor(p.wiring.monitor.ours, p.event)
	if needsGuard {
		if p.guard, err = startGuard(); err != nil {
			p.wiring.closeOurs()
			return errors.Join(err, p.jail.Close())
		}
	}
	p.log.Debug("starting qemu", "command", quoteCommand(p.cmd.Args))
	p.readers.Add(2) // before wait, which waits for them
	started := make(chan error)
	go p.wait(started)
	if err := <-started; err != nil {
		p.guard.stop()
		p.wiring.closeOurs()
		return fmt.Errorf("cannot start qemu: %w", errors.Join(err, p.jail.Close()))
	}
	p.log.Debug("qemu is jailed", "missing", p.jail.Report().Missing())
	go p.readMonitor()
	go p.readConsole()
	return nil
}

func (p *Process) command(args []string) *exec.Cmd {
	attr := &syscall.SysProcAttr{Setpgid: true} // the terminal's Ctrl-C is not for QEMU
	dieWithParent(attr)
	return &exec.Cmd{
		Path: p.machine.Binary, Args: append([]string{p.machine.Binary}, args...),
		Env: []string{}, // not the host's, which holds secrets; QEMU needs none
		Dir: "/", Stderr: p.stderr, ExtraFiles: p.wiring.extra,
		SysProcAttr: attr, WaitDelay: drainDeadline,
	}
}

// wait starts QEMU, says so, and waits for its end.
func (p *Process) wait(started chan<- error) {
	err := p.jail.Start(p.cmd)
	if err == nil && p.guard != nil {
		if err = p.guard.watch(p.cmd.Process.Pid); err != nil {
			_ = p.cmd.Process.Kill() // fails only if it is gone
			_ = p.jail.Wait()        // reports the kill
		}
	}
	started <- err
	if err == nil {
		p.finish(p.jail.Wait())
	}
}

// finish closes the streams, collects the last output and says why QEMU ended.
func (p *Process) finish(waitErr error) {
	p.guard.stop()
	if err := p.jail.Close(); err != nil {
		p.log.Debug("the jail is not cleared up", "error", err)
	}
	for _, s := range []stream{p.wiring.control, p.wiring.files, p.wiring.network} {
		s.ours.Close()
	}
	limit := time.Now().Add(drainDeadline)
	for _, s := range []stream{p.wiring.monitor, p.wiring.console} {
		_ = s.ours.SetReadDeadline(limit) // fails only on a closed connection
	}
	p.readers.Wait()
	p.wiring.closeOurs()

	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		end := ending{
			ran: p.ran, failure: p.failure, shutdown: p.shutdown, wait: waitErr,
			console: p.console.Bytes(), stderr: p.stderr.Bytes(),
		}
		p.err = end.exitError()
		p.log.Debug("qemu ended", "error", p.err)
	}
	close(p.done)
}

// negotiate waits for the monitor. If it fails, QEMU is gone when it returns.
func (p *Process) negotiate(ctx context.Context) error {
	err := p.monitor.negotiate(ctx, p.done)
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.ran = true
		return nil
	}
	if ctx.Err() != nil {
		return errors.Join(fmt.Errorf("cannot start qemu: %w", err), p.Close())
	}
	// The monitor hung up, so QEMU is about to end by itself and to say why.
	select {
	case <-p.done:
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("cannot start qemu: %w", err), p.Close())
	}
	p.log.Debug("qemu did not start", "command", quoteCommand(p.cmd.Args))
	return fmt.Errorf("cannot start qemu: %w", p.Err())
}

func (p *Process) readMonitor() {
	defer p.readers.Done()
	if err := p.monitor.run(); err != nil {
		p.kill(err)
	}
}

// readConsole keeps the console drained: a guest whose console is full stands still.
func (p *Process) readConsole() {
	defer p.readers.Done()
	_, _ = io.Copy(p.console, p.wiring.console.ours) // ends with QEMU, whose end says why
}

func (p *Process) event(e Event) {
	p.log.Debug("qemu event", "name", e.Name, "data", shorten(string(e.Data)))
	if reason := shutdownReason(e); reason != "" {
		p.mu.Lock()
		p.shutdown = reason
		p.mu.Unlock()
	}
	if state := migrationState(e); state != "" {
		select {
		case p.moved <- state:
		default: // more than a migration has: QEMU is not itself
		}
	}
	if p.onEvent != nil {
		p.onEvent(e)
	}
}

// kill ends QEMU because of cause.
func (p *Process) kill(cause error) {
	p.mu.Lock()
	if p.failure == nil {
		p.failure = cause
	}
	p.mu.Unlock()
	_ = p.cmd.Process.Kill() // fails only if it is gone
}

// Control returns the stream to the guest's "ctl" port.
func (p *Process) Control() net.Conn { return p.wiring.control.ours }

// Files returns the stream to the guest's "fs" port.
func (p *Process) Files() net.Conn { return p.wiring.files.ours }

// Network returns the Ethernet frames, each after its big-endian uint32 length.
func (p *Process) Network() net.Conn { return p.wiring.network.ours }

// Done is closed when QEMU has been reaped and the streams are closed.
func (p *Process) Done() <-chan struct{} { return p.done }

// Console returns a copy of the last 64 KiB of the guest's console.
func (p *Process) Console() []byte { return p.console.Bytes() }

// PID returns QEMU's process id. It may have been reused once Done is closed.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Machine returns the description QEMU runs, with its defaults filled in.
func (p *Process) Machine() Machine { return p.machine }

// Err says why QEMU ended: nil before Done is closed and after Close, otherwise a
// *machine.ExitError.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Execute runs one QMP command and returns its result. A refusal is a
// *CommandError. Without a deadline in ctx it has 30 seconds.
func (p *Process) Execute(ctx context.Context, command string, arguments any) (json.RawMessage, error) {
	return p.monitor.execute(ctx, command, arguments)
}

// Version returns QEMU's version with its build, such as "7.2.22 (Debian …)".
func (p *Process) Version(ctx context.Context) (string, error) {
	raw, err := p.Execute(ctx, "query-version", nil)
	if err != nil {
		return "", err
	}
	var v struct {
		QEMU struct {
			Major int `json:"major"`
			Minor int `json:"minor"`
			Micro int `json:"micro"`
		} `json:"qemu"`
		Package string `json:"package"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return "", fmt.Errorf("cannot read QEMU's version: %w", err)
	}
	version := fmt.Sprintf("%d.%d.%d", v.QEMU.Major, v.QEMU.Minor, v.QEMU.Micro)
	if v.Package != "" {
		version += " (" + shorten(v.Package) + ")"
	}
	return version, nil
}

// Pause stops the virtual processors and returns when they stand still.
func (p *Process) Pause(ctx context.Context) error {
	_, err := p.Execute(ctx, "stop", nil)
	return err
}

// Resume lets the virtual processors run.
func (p *Process) Resume(ctx context.Context) error {
	_, err := p.Execute(ctx, "cont", nil)
	return err
}

// Close kills QEMU and returns when it is gone, or with an error after 5 seconds.
func (p *Process) Close() error {
	p.mu.Lock()
	if p.err == nil && p.failure == nil {
		p.closed = true
	}
	p.mu.Unlock()
	_ = p.cmd.Process.Kill() // fails only if it is gone
	timer := time.NewTimer(closeDeadline)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		return fmt.Errorf("cannot end qemu: process %d is still there %v after being killed", p.PID(), closeDeadline)
	}
}

// quoteCommand returns a command line that a shell takes back.
func quoteCommand(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = a
		if hasControl(a) {
			quoted[i] = strconv.Quote(a)
		} else if !isPlain(a, "-_.+=,:/@%") {
			quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}
