package gondolin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"gondolin/internal/audit"
	"gondolin/internal/checkpoint"
	"gondolin/internal/egress"
	"gondolin/internal/machine/qemu"
)

// CheckpointInfo says what [VM.Checkpoint] did.
type CheckpointInfo struct {
	// Pause is for how long the VM's processors stood still.
	Pause time.Duration
	// Held is for how long its commands, their streams and the files on mounts did. It
	// includes Pause.
	Held time.Duration
	// Size is what the checkpoint takes on disk, in bytes.
	Size int64
	// Nameless is how many files on mounts are open that have no name any more. They stay
	// open here; in a restored VM using them fails with ESTALE.
	Nameless int
	// Timings are the phases of it.
	Timings []Timing
}

// ErrCheckpointExists is wrapped by the error for a checkpoint whose directory is there.
var ErrCheckpointExists = checkpoint.ErrExists

// Checkpoint saves the VM as it is now in the directory dir, which is made, with mode
// 0700: memory with everything that runs, devices, and what the host knows of its files and
// names. The VM goes on. [Restore] continues copies of it.
//
// The content of mounts is not part of it, and neither are secrets, the CA's key and what
// was being sent: the guest's connections to the outside end with a reset in the copies.
// Who can read dir can read all the guest's memory.
//
// Commands that are started meanwhile wait, a second at most as a rule. When it fails nothing
// is left, and the VM goes on.
func (vm *VM) Checkpoint(ctx context.Context, dir string) (CheckpointInfo, error) {
	watch := newStopwatch()
	draft, err := checkpoint.Begin(dir)
	if err != nil {
		return CheckpointInfo{}, err
	}
	about, info, err := vm.save(ctx, draft, watch)
	if err != nil {
		return CheckpointInfo{}, errors.Join(noSpace(draft, err), draft.Discard())
	}
	saved, err := draft.Commit(about, checkpoint.Lasting)
	if err != nil {
		return CheckpointInfo{}, err
	}
	watch.lap("commit")
	info.Size, info.Timings = saved.Size(), watch.timings
	vm.auditPhases("checkpoint", info.Timings)
	return info, nil
}

// auditPhases records a step in the VM's life and what it took.
func (vm *VM) auditPhases(phase string, timings []Timing) {
	vm.note(audit.Event{Kind: audit.Lifecycle, Phase: phase, Phases: milliseconds(timings)})
}

// spareSpace is what has to be free, besides what the guest is known to use, for a
// checkpoint to be begun, in bytes: the devices' state and some room.
const spareSpace = 64 << 20

// minGuest is the least a guest uses of its memory, in bytes.
const minGuest = 32 << 20

// noSpace names the likely cause where it is that: QEMU only dies of it.
func noSpace(draft *checkpoint.Draft, err error) error {
	if free, ferr := draft.Free(); errors.Is(err, syscall.ENOSPC) || ferr == nil && free < 1<<20 {
		return fmt.Errorf("cannot save the VM: no space is left where the checkpoint should be: %w", err)
	}
	return err
}

// save fills a draft. The VM runs when it returns, unless it has ended.
func (vm *VM) save(ctx context.Context, draft *checkpoint.Draft, watch *stopwatch) (*description, CheckpointInfo, error) {
	s := &saving{vm: vm, draft: draft, watch: watch}
	vm.sleeper.mu.Lock() // nothing starts, and nobody pauses the VM
	defer vm.sleeper.mu.Unlock()
	err := s.run(ctx)
	if err != nil {
		err = fmt.Errorf("cannot save the VM: %w", vm.failure(err))
	}
	return s.about, s.info, err
}

// saving is one run of save.
type saving struct {
	vm      *VM
	draft   *checkpoint.Draft
	watch   *stopwatch
	machine *qemu.Process
	about   *description
	info    CheckpointInfo
}

func (s *saving) run(ctx context.Context) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	if s.vm.sleeper.paused { // a guest has to run to come to rest
		if err := s.vm.resumeLocked(ctx); err != nil {
			return err
		}
		defer s.pauseAgain()
	}
	s.watch.lap("check")
	c, err := s.begin(ctx)
	if err != nil {
		return err
	}
	err = s.atRest(ctx, c)
	if err == nil {
		s.watch.lap("hold")
		err = s.saveDevices(ctx, c)
		s.watch.lap("devices")
	}
	return errors.Join(err, c.Close())
}

func (s *saving) pauseAgain() {
	if err := s.vm.pauseLocked(s.vm.running); err != nil {
		s.vm.config.Log.Warn("cannot pause the VM again", "error", err)
	}
}

// check finds out what can be known before anything is done to the VM.
func (s *saving) check(ctx context.Context) error {
	if err := s.vm.gone(); err != nil {
		return err
	}
	m, ok := s.vm.machine.(*qemu.Process)
	if !ok {
		return errors.New("its machine does not run on this host")
	}
	s.machine = m
	free, err := s.draft.Free()
	if err != nil {
		return err
	}
	if need := int64(minGuest + spareSpace); free < need {
		return fmt.Errorf("%d MiB are free where the checkpoint should be, and %d are the least that is needed", free>>20, need>>20)
	}
	if s.about, err = describe(s.vm.config, s.vm.image.Digest, m.Machine(), s.vm.mounts); err != nil {
		return err
	}
	s.about.QEMU, err = m.Version(ctx)
	return err
}

func (s *saving) begin(ctx context.Context) (*qemu.Copy, error) {
	if err := os.WriteFile(s.draft.Path(checkpoint.RAM), nil, 0o600); err != nil {
		return nil, err
	}
	return s.machine.Copy(ctx, s.draft.Path(checkpoint.RAM), qemu.Options{Log: s.vm.config.Log})
}

// restTimeout bounds bringing the guest to rest; the guest has less.
const restTimeout = 20 * time.Second

// atRest has the guest come to rest, finishes the copy, and lets the guest go on.
func (s *saving) atRest(ctx context.Context, c *qemu.Copy) (err error) {
	resting, cancel := context.WithTimeoutCause(ctx, restTimeout, fmt.Errorf("the guest did not come to rest within %v", restTimeout))
	defer cancel()
	began := time.Now()
	rest, err := s.vm.control.Suspend(resting)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, rest.Proceed())
		s.info.Held = time.Since(began)
	}()
	s.watch.lap("rest")
	if err := s.saveFiles(); err != nil {
		return err
	}
	stopped := time.Now()
	if err := c.Stop(ctx); err != nil {
		return err
	}
	defer func() {
		// Also when ctx has ended: the VM goes on.
		err = errors.Join(err, s.machine.Resume(context.WithoutCancel(ctx)))
		s.info.Pause = time.Since(stopped)
	}()
	s.about.Continue = s.vm.gateway.Continue()
	return c.Finish(ctx)
}

func (s *saving) saveFiles() error {
	if s.vm.files == nil {
		return nil
	}
	state, nameless, err := s.vm.files.Save()
	if err != nil {
		return err
	}
	s.info.Nameless = nameless
	return os.WriteFile(s.draft.Path(checkpoint.Files), state, 0o600)
}

func (s *saving) saveDevices(ctx context.Context, c *qemu.Copy) error {
	file, err := os.OpenFile(s.draft.Path(checkpoint.Devices), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(c.Save(ctx, file), file.Close())
}

// saved is what a plan continues instead of beginning.
type saved struct {
	files *checkpoint.Checkpoint
	about *description
	// memory is what only this process knows of the VM that was saved; nil otherwise.
	memory *egress.Continue
}

// open reads a checkpoint and the state of the files in it.
func openSaved(dir string) (*saved, error) {
	c, err := checkpoint.Open(dir)
	if err != nil {
		return nil, err
	}
	s := &saved{files: c, about: new(description)}
	if err := c.Read(s.about); err != nil {
		return nil, err
	}
	if err := s.about.check(); err != nil {
		return nil, fmt.Errorf("cannot use the checkpoint %s: %w", dir, err)
	}
	return s, nil
}

// continues returns what the guest remembers of its way out.
func (s *saved) continues() *egress.Continue {
	switch {
	case s == nil:
		return nil
	case s.memory != nil:
		return s.memory
	}
	return s.about.Continue
}

// fileState returns what the file server knew; nil if there was none.
func (s *saved) fileState() ([]byte, error) {
	if !s.files.Has(checkpoint.Files) {
		return nil, nil
	}
	return os.ReadFile(s.files.Path(checkpoint.Files))
}
