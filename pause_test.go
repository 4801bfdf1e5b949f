package gondolin_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"gondolin"
	"gondolin/internal/vmtest"
)

func TestPause(t *testing.T) {
	vm := vmtest.Start(t, gondolin.Config{})
	// A process that counts, so that it shows when it stood still.
	vmtest.Output(t, vm, `setsid sh -c 'while :; do echo >> /tmp/count; sleep 0.02; done' </dev/null >/dev/null 2>&1 & echo`)
	count := func() (n int) {
		t.Helper()
		if _, err := fmt.Sscan(vmtest.Output(t, vm, "wc -l < /tmp/count"), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	for range 2 { // twice is once
		if err := vm.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !vm.Paused() {
		t.Error("not paused")
	}
	<-time.After(1500 * time.Millisecond)
	if err := vm.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ran := count() - before; ran > 50 { // 1.5 s would have been 75
		t.Errorf("a paused guest went on: %d rounds", ran)
	}
	checkClock(t, vm)
	// A command wakes the VM.
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := vmtest.Output(t, vm, "echo awake"); out != "awake\n" || vm.Paused() {
		t.Errorf("%q, paused %v", out, vm.Paused())
	}
	// A VM that is closed while it is paused cannot be woken.
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	vm.Close()
	if err := vm.Command(t.Context(), "true").Run(); !errors.Is(err, gondolin.ErrClosed) {
		t.Errorf("a command in a VM closed while paused: %v", err)
	}
	if err := vm.Resume(t.Context()); !errors.Is(err, gondolin.ErrClosed) {
		t.Errorf("resuming a closed VM: %v", err)
	}
	running := vmtest.Start(t, gondolin.Config{})
	running.Close()
	vm = running
	if err := vm.Pause(t.Context()); !errors.Is(err, gondolin.ErrClosed) {
		t.Errorf("pausing a closed VM: %v", err)
	}
}

func TestIdlePause(t *testing.T) {
	vm := vmtest.Start(t, gondolin.Config{IdlePause: 100 * time.Millisecond})
	vmtest.Output(t, vm, "true")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !vm.Paused() && ctx.Err() == nil {
		<-time.After(10 * time.Millisecond)
	}
	if !vm.Paused() {
		t.Fatal("an idle VM was not paused")
	}
	// A command keeps it awake, however long it takes.
	if out := vmtest.Output(t, vm, "sleep 0.5; echo done"); out != "done\n" {
		t.Errorf("%q", out)
	}
	checkClock(t, vm)
}
