package gondolin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"gondolin/internal/session"
)

// Session makes a VM known to the other processes of the same user, root's
// included, which can then list, pause, save, fork and end it: 'gondolin list'
// shows it, and the commands that take a SESSION act on it. It lives in this
// process and ends with it, and so do the children that others fork of it.
type Session struct {
	// Name is a second name besides the ID, unique among the sessions that run.
	// 1 to 63 letters, digits, dots, hyphens and underscores. Empty: none.
	Name string
	// Label says what the VM is for, at most 200 bytes. Others see it: no secrets.
	Label string
}

const maxLabel = 200

func (s *Session) validate() error {
	switch {
	case s == nil:
		return nil
	case s.Name != "":
		if err := session.CheckName(s.Name); err != nil {
			return err
		}
	}
	if len(s.Label) > maxLabel || strings.ContainsFunc(s.Label, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("cannot use session label %.40q: give at most %d bytes without control characters", s.Label, maxLabel)
	}
	return nil
}

// SessionID returns the ID other processes know the VM by; empty without [Config.Session].
func (vm *VM) SessionID() string {
	if vm.session == nil {
		return ""
	}
	return vm.session.ID
}

// listen makes the socket of a VM that is to be a session. Nobody finds it yet.
func (p *plan) listen(context.Context) error {
	if p.config.Session == nil {
		return nil
	}
	registry, err := session.Open(p.dirs.Sessions())
	if err != nil {
		return err
	}
	p.session, err = registry.Listen(p.id)
	return err
}

// publish lets other processes find the VM.
func (vm *VM) publish(ctx context.Context) error {
	if vm.session == nil {
		return nil
	}
	return vm.session.Publish(ctx, vm.config.Session.Name)
}

// ErrStopped is why a VM ended that another process ended, as 'gondolin stop' does.
var ErrStopped = errors.New("stopped by another process")

func (vm *VM) runSession(ctx context.Context) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	err := vm.session.Serve(ctx, vm.routes(end), vm.config.Log)
	if cerr := vm.endChildren(); cerr != nil {
		vm.config.Log.Warn("cannot end a child", "error", cerr)
	}
	if errors.Is(context.Cause(ctx), ErrStopped) {
		return ErrStopped
	}
	return err
}

// routes is what other processes can ask of the VM; end ends the session, and so the VM.
func (vm *VM) routes(end context.CancelCauseFunc) map[string]http.Handler {
	return map[string]http.Handler{
		session.InfoPath: session.JSON(func(context.Context, session.Empty) (session.Info, error) {
			return vm.info(), nil
		}),
		session.PausePath:      session.JSON(plainly(vm.Pause)),
		session.ResumePath:     session.JSON(plainly(vm.Resume)),
		session.CheckpointPath: session.JSON(vm.checkpointFor),
		session.ForkPath:       session.JSON(vm.forkFor),
		session.StopPath: session.Then(
			session.JSON(plainly(func(context.Context) error { return nil })), func() { end(ErrStopped) }),
	}
}

// plainly makes an operation of what needs no message.
func plainly(do func(context.Context) error) func(context.Context, session.Empty) (session.Empty, error) {
	return func(ctx context.Context, _ session.Empty) (session.Empty, error) { return session.Empty{}, do(ctx) }
}

// checkpointFor saves the VM where another process of the same user says.
func (vm *VM) checkpointFor(ctx context.Context, in session.Checkpoint) (session.Saved, error) {
	if !filepath.IsAbs(in.Dir) {
		return session.Saved{}, fmt.Errorf("cannot save the VM in %q: not an absolute path", in.Dir)
	}
	info, err := vm.Checkpoint(ctx, in.Dir)
	return session.Saved{Size: info.Size, Pause: info.Pause, Held: info.Held, Nameless: info.Nameless}, err
}

// forkFor starts children that live in this process, since the values of their
// policy, secrets and files do, until they are stopped or this VM ends.
func (vm *VM) forkFor(ctx context.Context, in session.Fork) (session.Forked, error) {
	children, err := vm.Fork(ctx, in.Count, nil)
	if err != nil {
		return session.Forked{}, err
	}
	var out session.Forked
	for _, child := range children {
		out.IDs = append(out.IDs, child.SessionID())
	}
	vm.mu.Lock()
	defer vm.mu.Unlock()
	vm.children = append(slices.DeleteFunc(vm.children, func(child *VM) bool { return child.gone() != nil }), children...)
	return out, nil
}

// endChildren ends what forkFor has started. Nobody forks any more.
func (vm *VM) endChildren() error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	var g errgroup.Group
	for _, child := range vm.children {
		g.Go(child.Close)
	}
	return g.Wait()
}

func (vm *VM) info() session.Info {
	state := session.Running
	if vm.Paused() {
		state = session.Paused
	}
	return session.Info{
		ID: vm.session.ID, Name: vm.config.Session.Name, Label: vm.config.Session.Label, PID: os.Getpid(), State: state,
		Started: vm.started, Image: vm.image.Ref, Memory: vm.config.Memory, CPUs: vm.config.CPUs,
	}
}
