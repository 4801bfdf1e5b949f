package gondolin_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"gondolin"
	"gondolin/internal/testenv"
	"gondolin/internal/vmtest"
)

func small(n int) (gondolin.Config, error) {
	return gondolin.Config{Memory: 256 << 20, CPUs: 1, Hostname: fmt.Sprintf("pooled%d", n)}, nil
}

func TestPool(t *testing.T) {
	vmtest.Needs(t)
	testenv.CheckLeaks(t)
	n := 0
	p, err := gondolin.NewPool(t.Context(), gondolin.PoolConfig{Size: 2, New: func() (gondolin.Config, error) {
		n++
		return small(n)
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	names := make(map[string]bool)
	for range 4 { // more than are ready
		vm, err := p.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		name := vmtest.Output(t, vm, "hostname")
		if names[name] {
			t.Errorf("%q was handed over twice", name)
		}
		names[name] = true
		if err := vm.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Get(t.Context()); !errors.Is(err, gondolin.ErrPoolClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A pool that nobody uses gives its VMs up, and is back at the next Get.
func TestPoolIdles(t *testing.T) {
	vmtest.Needs(t)
	testenv.CheckLeaks(t)
	started := make(chan struct{}, 100)
	p, err := gondolin.NewPool(t.Context(), gondolin.PoolConfig{
		IdleAfter: 50 * time.Millisecond,
		New: func() (gondolin.Config, error) {
			started <- struct{}{}
			return small(0)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	<-started
	gondolin.WaitIdle(t, p)
	vm, err := p.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if out := vmtest.Output(t, vm, "echo alive"); out != "alive\n" {
		t.Errorf("%q", out)
	}
	vm.Close()
}

func TestPoolRefuses(t *testing.T) {
	for _, config := range []gondolin.PoolConfig{{}, {Size: -1, New: func() (gondolin.Config, error) { return small(0) }}} {
		if _, err := gondolin.NewPool(t.Context(), config); err == nil {
			t.Errorf("%+v was accepted", config.Size)
		}
	}
	// What New refuses, Get says.
	no := errors.New("no config today")
	p, err := gondolin.NewPool(t.Context(), gondolin.PoolConfig{New: func() (gondolin.Config, error) { return gondolin.Config{}, no }})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Get(t.Context()); !errors.Is(err, no) {
		t.Error(err)
	}
}
