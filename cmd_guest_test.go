package gondolin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"gondolin/internal/control"
	"gondolin/internal/rpc"
	"gondolin/internal/testenv"
	"gondolin/internal/wire"
)

// guestVM returns a VM that is only a control channel, at whose other end serve
// plays the guest.
func guestVM(t *testing.T, serve rpc.Handler) *VM {
	t.Helper()
	host, guest := rpc.Pipe()
	client, err := control.New(host)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- rpc.Serve(context.WithoutCancel(t.Context()), guest, serve) }()
	t.Cleanup(func() {
		client.Close()
		<-served
	})
	vm := &VM{control: client, ended: make(chan struct{}), err: errors.New("over")}
	close(vm.ended)
	return vm
}

// say sends messages on an exec stream and then neither closes nor reads it.
func say(messages ...wire.Message) rpc.Handler {
	return func(_ context.Context, first wire.Message, s *rpc.Stream) {
		if _, ok := first.(*wire.Exec); ok {
			for _, m := range messages {
				_ = wire.Write(s, m)
			}
		}
	}
}

// flood sends messages on an exec stream, and output without end.
func flood(messages ...wire.Message) rpc.Handler {
	answer := say(messages...)
	return func(ctx context.Context, first wire.Message, s *rpc.Stream) {
		answer(ctx, first, s)
		if a, ok := first.(*wire.Attach); ok && a.Descriptor != wire.Stdin {
			for {
				if _, err := s.Write(bytes.Repeat([]byte("y\n"), 1000)); err != nil {
					return
				}
			}
		}
	}
}

// Whatever a guest says or does not say, a command whose context is done ends,
// and nothing is written to the caller's writers afterwards (which the race
// detector checks).
func TestWaitEndsWithItsContext(t *testing.T) {
	testenv.CheckLeaks(t)
	started, exited := &wire.Started{PID: 7}, &wire.Exited{Code: 0}
	var all sync.WaitGroup
	for name, serve := range map[string]rpc.Handler{
		"never exits":         say(started),
		"never exits, floods": flood(started),
		"output stays open":   say(started, exited),
		"output goes on":      flood(started, exited, &wire.Drained{}),
		"answers twice":       flood(started, started),
		"exits twice":         flood(started, exited, exited),
		"fails after Started": flood(started, &wire.Failed{Text: strings.Repeat("x", 4000)}),
	} {
		vm := guestVM(t, serve)
		all.Go(func() { // not as parallel subtests: they only wait, and few run at once
			if took, err := runBriefly(t, vm); err == nil || took > 2*cancelMargin {
				t.Errorf("%s: %v after %v", name, err, took)
			}
		})
	}
	all.Wait()
}

func runBriefly(t *testing.T, vm *VM) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	c := vm.Command(ctx, "x")
	var out, errOut lastBytes
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader("in"), &out, &errOut
	c.Grace, c.WaitDelay = -1, time.Millisecond
	begin := time.Now()
	err := c.Run()
	out, errOut = nil, nil
	return time.Since(begin), err
}

// A guest that ends the output but never says that it is all.
func TestWaitForDrainedEndsWithItsContext(t *testing.T) {
	testenv.CheckLeaks(t)
	vm := guestVM(t, func(ctx context.Context, first wire.Message, s *rpc.Stream) {
		if _, ok := first.(*wire.Attach); ok {
			s.Abort()
		}
		say(&wire.Started{PID: 7}, &wire.Exited{})(ctx, first, s)
	})
	if took, err := runBriefly(t, vm); !errors.Is(err, context.DeadlineExceeded) || took > 2*cancelMargin {
		t.Errorf("%v after %v", err, took)
	}
}

// lastBytes is what was written last.
type lastBytes []byte

func (l *lastBytes) Write(p []byte) (int, error) {
	*l = append((*l)[:0], p...)
	return len(p), nil
}

func TestOutputIsBounded(t *testing.T) {
	c := collector{limit: 10}
	if n, err := c.Write([]byte("12345678")); n != 8 || err != nil {
		t.Error(n, err)
	}
	if n, err := c.Write([]byte("90ab")); n != 2 || !errors.Is(err, errTooMuch) || c.held.String() != "1234567890" {
		t.Errorf("%d, %v, %q", n, err, c.held.String())
	}
	exit := &ExitError{code: 141}
	if err := c.explain(exit); !errors.Is(err, errTooMuch) || !errors.Is(err, exit) {
		t.Error(err)
	}
	if err := (&collector{}).explain(exit); errors.Is(err, errTooMuch) || !errors.Is(err, exit) {
		t.Error(err)
	}
}

// exits serves a command that reads no input and ends when told to, or at once.
func exits(code int) rpc.Handler {
	return func(_ context.Context, first wire.Message, s *rpc.Stream) {
		defer s.Abort()
		if _, ok := first.(*wire.Exec); ok {
			for _, m := range []wire.Message{&wire.Started{PID: 7}, &wire.Exited{Code: code}, &wire.Drained{}} {
				_ = wire.Write(s, m)
			}
		}
	}
}

// A command that stops reading ends the writer's side of its pipe, before Wait.
func TestStdinPipeNobodyReads(t *testing.T) {
	testenv.CheckLeaks(t)
	c := guestVM(t, exits(0)).Command(t.Context(), "true")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = in.Write(make([]byte, 64<<10))
	}
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

// Input that could not be read is not taken for input that has ended.
func TestStdinFails(t *testing.T) {
	testenv.CheckLeaks(t)
	broken := errors.New("broken")
	ended := make(chan struct{})
	serve := func(_ context.Context, first wire.Message, s *rpc.Stream) {
		defer s.Abort()
		switch first.(type) {
		case *wire.Exec:
			_ = wire.Write(s, &wire.Started{PID: 7})
			<-ended
			_ = wire.Write(s, &wire.Exited{})
			_ = wire.Write(s, &wire.Drained{})
		case *wire.Attach:
			_, _ = io.Copy(io.Discard, s)
			close(ended)
		}
	}
	c := guestVM(t, serve).Command(t.Context(), "cat")
	c.Stdin = io.MultiReader(strings.NewReader("half"), failing{broken})
	if err := c.Run(); !errors.Is(err, broken) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// A command that was told to end has not succeeded, whatever its exit code.
func TestToldToEndIsAnError(t *testing.T) {
	testenv.CheckLeaks(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	c := guestVM(t, func(_ context.Context, _ wire.Message, s *rpc.Stream) {
		defer s.Abort()
		_ = wire.Write(s, &wire.Started{PID: 7})
		m, err := wire.Read(s, wire.ToGuest)
		if _, ok := m.(*wire.Terminate); !ok {
			t.Errorf("%v, %v", m, err)
		}
		_ = wire.Write(s, &wire.Exited{})
		_ = wire.Write(s, &wire.Drained{})
	}).Command(ctx, "x")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	cancel(why)
	if err := c.Wait(); !errors.Is(err, why) {
		t.Error(err)
	}
}

// A reader that leaves early is not the command's failure, and a start that
// fails leaves nobody waiting at a pipe.
func TestOutputPipes(t *testing.T) {
	testenv.CheckLeaks(t)
	serve := func(ctx context.Context, first wire.Message, s *rpc.Stream) {
		if a, ok := first.(*wire.Attach); ok && a.Descriptor == wire.Stdout {
			_, _ = s.Write(make([]byte, 1<<20))
			s.Abort()
			return
		}
		exits(0)(ctx, first, s)
	}
	c := guestVM(t, serve).Command(t.Context(), "x")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 10)); err != nil {
		t.Error(err)
	}
	out.Close()
	if err := c.Wait(); err != nil {
		t.Error(err)
	}

	c = guestVM(t, say(&wire.Failed{Reason: wire.ReasonNotFound, Text: "cannot"})).Command(t.Context(), "x")
	if out, err = c.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); !errors.Is(err, exec.ErrNotFound) {
		t.Error(err)
	}
	if b, err := io.ReadAll(out); len(b) != 0 || err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%q, %v", b, err)
	}
}
