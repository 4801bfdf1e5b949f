package gondolin

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"gondolin/internal/checkpoint"
	"gondolin/internal/paths"
)

// maxFork bounds the children of one Fork: more is a mistake on any machine this runs on.
const maxFork = 1024

// Fork starts n VMs that continue what this one is doing, each for itself, and returns when
// commands can run in them. This one goes on, as after [VM.Checkpoint]. All or none of
// them are started; the caller must Close them.
//
// A child has a config like this VM's, which configure, if it is not nil, may change as for
// [Restore]: it is called for each child, from 0, before anything is started. Unless it does,
// children share this VM's file systems and the places its audit goes to, under an id of
// their own. Their CA is this VM's, so that programs that have read their
// certificates go on; each has its own gateway, and the placeholders its processes hold.
func (vm *VM) Fork(ctx context.Context, n int, configure func(child int, config *Config)) ([]*VM, error) {
	if n < 1 || n > maxFork {
		return nil, fmt.Errorf("cannot fork %d VMs: give 1 to %d", n, maxFork)
	}
	from, err := vm.saveFleeting(ctx)
	if err != nil {
		return nil, err
	}
	children, err := vm.startChildren(ctx, from, n, configure)
	// They have its files open; the names are of no use any more.
	return children, errors.Join(err, from.files.Remove())
}

// saveFleeting saves the VM for use by this process, at once.
func (vm *VM) saveFleeting(ctx context.Context) (*saved, error) {
	dirs, err := vm.config.Host.dirs()
	if err != nil {
		return nil, err
	}
	if err := paths.Ensure(dirs.Forks()); err != nil {
		return nil, err
	}
	draft, err := checkpoint.Begin(filepath.Join(dirs.Forks(), newID()))
	if err != nil {
		return nil, err
	}
	watch := newStopwatch()
	about, _, err := vm.save(ctx, draft, watch)
	if err != nil {
		return nil, errors.Join(noSpace(draft, err), draft.Discard())
	}
	c, err := draft.Commit(about, checkpoint.Fleeting)
	if err != nil {
		return nil, err
	}
	watch.lap("commit")
	vm.auditPhases("fork", watch.timings)
	return &saved{files: c, about: about, memory: about.Continue}, nil
}

func (vm *VM) startChildren(ctx context.Context, from *saved, n int, configure func(int, *Config)) ([]*VM, error) {
	configs := make([]Config, n)
	for i := range configs {
		configs[i] = vm.config
		if own := vm.config.Session; own != nil {
			configs[i].Session = &Session{Label: own.Label} // the name is this VM's
		}
		if configure != nil {
			configure(i, &configs[i])
		}
	}
	children := make([]*VM, n)
	g, starting := errgroup.WithContext(ctx)
	g.SetLimit(2 * runtime.GOMAXPROCS(0)) // they wait for QEMU and the guest about half of the time
	for i := range children {
		g.Go(func() error {
			p, err := prepareSaved(starting, from, configs[i], newStopwatch())
			if err == nil {
				children[i], err = p.launch(starting)
			}
			if err != nil {
				return fmt.Errorf("cannot start child %d: %w", i, err)
			}
			return nil
		})
	}
	err := g.Wait()
	if err == nil {
		return children, nil
	}
	for _, child := range children {
		if child != nil {
			err = errors.Join(err, child.Close())
		}
	}
	return nil, err
}
