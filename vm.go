package gondolin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"gondolin/internal/audit"
	"gondolin/internal/control"
	"gondolin/internal/egress"
	"gondolin/internal/fsserver"
	"gondolin/internal/image"
	"gondolin/internal/machine"
	"gondolin/internal/machine/jail"
	"gondolin/internal/session"
	"gondolin/internal/wire"
)

// ErrClosed is returned for what was under way when [VM.Close] was called, and
// for what comes after.
var ErrClosed = errors.New("VM closed")

// VM is a running virtual machine. Its methods may be called from any goroutine.
//
//	          Start                     Close
//	(none) ----------> running --------------------> closed
//	                      |                            ^
//	                      +-- machine or a part ends --+
type VM struct {
	config  Config
	image   *image.Image
	gateway *egress.Gateway
	audit   *audit.Log       // nil: no record
	files   *fsserver.Server // nil without mounts
	mounts  []mount

	machine interface {
		machine.Machine
		machine.Pauser
	}
	control *control.Client
	ready   *wire.Ready
	timings []Timing        // of Start
	jail    jail.Report     // around the machine
	session *session.Server // nil: no other process knows of the VM
	started time.Time

	commands atomic.Uint64 // numbers the commands

	sleeper  sleeper
	running  context.Context    //nolint:containedctx // done when the VM is being ended; for what it does by itself
	stop     context.CancelFunc // ends the parts
	ended    chan struct{}      // closed when every part has ended
	mu       sync.Mutex         // guards what follows
	err      error              // why the VM ended
	closed   bool               // Close was called
	children []*VM              // what other processes have forked; they end with the VM
}

// Start boots a VM and returns when commands can run in it. ctx bounds the start
// only. The caller must Close the VM.
//
// When it fails nothing is left running, and the error says what to do: it holds
// the last lines of the guest's console and of QEMU's own output where they
// tell the cause.
func Start(ctx context.Context, config Config) (*VM, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	p, err := prepare(ctx, config.withDefaults())
	if err != nil {
		return nil, err
	}
	return p.launch(ctx)
}

// Done is closed when the VM has ended, by [VM.Close] or by itself.
func (vm *VM) Done() <-chan struct{} { return vm.ended }

// Err says why the VM ended, once Done is closed: [ErrClosed] after Close.
func (vm *VM) Err() error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.closed && vm.err == nil {
		return ErrClosed
	}
	return vm.err
}

// Close ends the VM at once, as pulling the plug would: what the guest has
// written to mounts and acknowledged is with the mounts' providers, all else is
// gone. It returns when nothing of the VM is left, within a few seconds, and is
// idempotent. It returns an error only when something could not be ended.
func (vm *VM) Close() error {
	vm.mu.Lock()
	vm.closed = true
	vm.mu.Unlock()
	err := vm.machine.Close()
	vm.control.Close()
	vm.stop()
	return errors.Join(err, vm.awaitEnd())
}

// closeTimeout is how long the end of a VM waits for calls into the caller's own code.
const closeTimeout = 10 * time.Second

// awaitEnd waits for the parts, which end together.
func (vm *VM) awaitEnd() error {
	t := time.NewTimer(closeTimeout)
	defer t.Stop()
	select {
	case <-vm.ended:
		return nil
	case <-t.C:
		return fmt.Errorf("cannot end the VM's parts within %v: a call of a file system, a resolver or a writer does not return", closeTimeout)
	}
}

// gone returns why the VM has ended, nil while it has not.
func (vm *VM) gone() error {
	select {
	case <-vm.ended:
		return vm.Err()
	default:
		return nil
	}
}

// Console returns the last part of what the guest wrote to its console, with
// control characters removed.
func (vm *VM) Console() string { return machine.Sanitize(vm.machine.Console()) }

// failure explains an error of the control channel: when the VM has ended, by
// the reason it ended.
func (vm *VM) failure(err error) error {
	if !errors.Is(err, control.ErrClosed) {
		return err
	}
	if err := vm.awaitEnd(); err != nil {
		return err
	}
	return fmt.Errorf("cannot go on: %w", vm.Err())
}
