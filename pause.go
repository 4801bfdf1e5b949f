package gondolin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// sleeper keeps count of what a VM is doing, and whether it is paused.
//
//	            last command ended, IdlePause later; Pause
//	running ------------------------------------------------> paused
//	        <------------------------------------------------
//	                     Resume; a command starts
type sleeper struct {
	mu     sync.Mutex // held while the machine is paused or resumed
	busy   int        // commands that run
	paused bool
	idle   *time.Timer // pauses the VM; nil while busy or without IdlePause
}

// Pause stops the VM's processors. Its memory stays, it uses no CPU, and nothing in
// it makes progress, until Resume or until a command is started. It is idempotent.
func (vm *VM) Pause(ctx context.Context) error {
	vm.sleeper.mu.Lock()
	defer vm.sleeper.mu.Unlock()
	return vm.pauseLocked(ctx)
}

func (vm *VM) pauseLocked(ctx context.Context) error {
	if vm.sleeper.paused {
		return nil
	}
	if err := vm.gone(); err != nil {
		return err
	}
	if err := vm.machine.Pause(ctx); err != nil {
		return fmt.Errorf("cannot pause the VM: %w", err)
	}
	vm.sleeper.paused = true
	vm.lifecycle("pause", nil)
	return nil
}

// Resume lets a paused VM run again, with the right time. It is idempotent.
func (vm *VM) Resume(ctx context.Context) error {
	vm.sleeper.mu.Lock()
	defer vm.sleeper.mu.Unlock()
	return vm.resumeLocked(ctx)
}

func (vm *VM) resumeLocked(ctx context.Context) error {
	if !vm.sleeper.paused {
		return nil
	}
	if err := vm.gone(); err != nil {
		return err
	}
	if err := vm.machine.Resume(ctx); err != nil {
		return fmt.Errorf("cannot resume the VM: %w", err)
	}
	vm.sleeper.paused = false
	vm.lifecycle("resume", nil)
	return vm.control.SetClock(ctx, time.Now())
}

// Paused reports whether the VM is paused.
func (vm *VM) Paused() bool {
	vm.sleeper.mu.Lock()
	defer vm.sleeper.mu.Unlock()
	return vm.sleeper.paused
}

// begin notes that a command is about to run, and wakes the VM for it.
func (vm *VM) begin(ctx context.Context) error {
	s := &vm.sleeper
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle != nil {
		s.idle.Stop()
		s.idle = nil
	}
	if err := vm.resumeLocked(ctx); err != nil {
		return err
	}
	s.busy++
	return nil
}

// finish notes that a command has ended.
func (vm *VM) finish() {
	s := &vm.sleeper
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	vm.scheduleLocked()
}

// rest notes that no command runs yet.
func (vm *VM) rest() {
	vm.sleeper.mu.Lock()
	defer vm.sleeper.mu.Unlock()
	vm.scheduleLocked()
}

// scheduleLocked has the VM paused when it stays idle.
func (vm *VM) scheduleLocked() {
	s := &vm.sleeper
	if vm.config.IdlePause <= 0 || s.busy > 0 || s.paused || s.idle != nil {
		return
	}
	s.idle = time.AfterFunc(vm.config.IdlePause, vm.pauseIdle)
}

func (vm *VM) pauseIdle() {
	s := &vm.sleeper
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy > 0 || s.idle == nil {
		return
	}
	s.idle = nil
	ctx, cancel := context.WithTimeout(vm.running, pauseTimeout)
	defer cancel()
	if err := vm.pauseLocked(ctx); err != nil && !errors.Is(err, ErrClosed) {
		vm.config.Log.Warn("cannot pause an idle VM", "error", err)
	}
}

// pauseTimeout bounds one pause of an idle VM.
const pauseTimeout = 10 * time.Second

const (
	// clockCheck is how often the host is asked whether it slept, which stops the
	// guest's clock and not the host's.
	clockCheck = 10 * time.Second
	// clockSlack is the least sleep worth correcting.
	clockSlack = 200 * time.Millisecond
	// clockRounds is after how many checks the clock is set in any case: the guest's
	// counter drifts by up to 50 ppm, 15 ms in this time.
	clockRounds = 30
)

// runClock keeps the guest's wall clock right.
func (vm *VM) runClock(ctx context.Context) error {
	tick := time.NewTicker(clockCheck)
	defer tick.Stop()
	last, rounds := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		now := time.Now()
		// Round(0) drops the monotonic reading, which stands still while the host sleeps.
		slept := now.Round(0).Sub(last.Round(0)) - now.Sub(last)
		last, rounds = now, rounds+1
		if slept.Abs() < clockSlack && rounds < clockRounds {
			continue
		}
		rounds = 0
		if err := vm.correctClock(ctx); err != nil && ctx.Err() == nil {
			vm.config.Log.Warn("cannot correct the guest's clock", "error", err)
		}
	}
}

// correctClock sets the clock of a VM that is not paused; a paused one gets it on waking.
func (vm *VM) correctClock(ctx context.Context) error {
	vm.sleeper.mu.Lock()
	defer vm.sleeper.mu.Unlock()
	if vm.sleeper.paused {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, clockCheck)
	defer cancel()
	return vm.control.SetClock(ctx, time.Now())
}
