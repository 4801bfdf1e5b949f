package gondolin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// part is something that runs as long as the VM. run blocks until ctx is done
// or the part cannot go on.
type part struct {
	name string
	run  func(ctx context.Context) error
}

// parts lists what makes a VM, in the order of starting. The first to end ends
// all: a VM without its network policy, its files or its control channel is
// not the VM that was asked for.
func (vm *VM) parts() []part {
	list := []part{
		{"machine", vm.runMachine},
		{"network", func(ctx context.Context) error { return vm.gateway.Run(ctx, vm.machine.Network()) }},
	}
	if vm.files != nil {
		list = append(list, part{"files", func(ctx context.Context) error { return vm.files.Run(ctx, vm.machine.Files()) }})
	}
	if vm.session != nil {
		list = append(list, part{"session", vm.runSession})
	}
	return append(list, part{"control", vm.runControl}, part{"clock", vm.runClock})
}

// run runs the parts until they have all ended, and notes why.
func (vm *VM) run(ctx context.Context) {
	defer close(vm.ended)
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range vm.parts() {
		g.Go(func() error { return vm.runPart(ctx, p) })
	}
	err := g.Wait()
	vm.machine.Close()
	vm.control.Close()
	vm.stop()
	vm.lifecycle("end", vm.noteEnd(err))
}

// noteEnd settles why the VM ended, which is no error if it was closed.
func (vm *VM) noteEnd(err error) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if !vm.closed {
		vm.err = vm.cause(err)
	}
	return vm.err
}

func (vm *VM) runPart(ctx context.Context, p part) error {
	err := p.run(ctx)
	if err == nil {
		err = errors.New("ended")
	}
	if !errors.Is(err, ErrStopped) {
		vm.awaitMachine(ctx)
	}
	return fmt.Errorf("%s: %w", p.name, err)
}

// lastWords is how long a machine whose streams have ended may take to be gone.
const lastWords = time.Second

// awaitMachine gives a machine that is ending, which its streams show first, the
// time to say why, before it is closed for it.
func (vm *VM) awaitMachine(ctx context.Context) {
	t := time.NewTimer(lastWords)
	defer t.Stop()
	select {
	case <-vm.machine.Done():
	case <-ctx.Done():
	case <-t.C:
	}
}

// cause prefers the machine's own account of its end over what the parts saw of it.
func (vm *VM) cause(err error) error {
	if merr := vm.machine.Err(); merr != nil {
		return fmt.Errorf("VM ended: %w", merr)
	}
	return fmt.Errorf("VM ended: %w", err)
}

func (vm *VM) runMachine(ctx context.Context) error {
	select {
	case <-vm.machine.Done():
	case <-ctx.Done():
		vm.machine.Close()
	}
	<-vm.machine.Done()
	return vm.machine.Err()
}

func (vm *VM) runControl(ctx context.Context) error {
	select {
	case <-vm.control.Done():
		return errors.New("the guest broke the control protocol, or the channel ended")
	case <-ctx.Done():
		vm.control.Close()
		return ctx.Err()
	}
}
