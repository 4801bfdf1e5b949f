package gondolin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gondolin/internal/checkpoint"
	"gondolin/internal/fsserver"
	"gondolin/internal/machine/accel"
	"gondolin/internal/machine/qemu"
	"gondolin/internal/wire"
)

// Restore starts a VM that continues what [VM.Checkpoint] saved in dir. It may be called
// any number of times, also at once. ctx bounds the start only. The caller must Close the VM.
//
// What ran goes on, with nobody attached: input that came from the host has ended, output
// to the host is discarded, terminals stay open. Clock, random numbers, host name, machine id
// and CA are the new VM's own before anything goes on. The placeholders of secrets stay what
// they were, as processes hold them; where they may go config says.
//
// Of config, Image, Memory and CPUs may be left empty, as may be Hostname to keep it. Network,
// Secrets and Mounts have to be what they were, but for what Accept names; the
// error says in what they differ. Cold and IdlePause are as in [Start].
func Restore(ctx context.Context, dir string, config Config) (*VM, error) {
	watch := newStopwatch()
	from, err := openSaved(dir)
	if err != nil {
		return nil, err
	}
	watch.lap("open")
	p, err := prepareSaved(ctx, from, config, watch)
	if err != nil {
		return nil, fmt.Errorf("cannot restore %s: %w", dir, err)
	}
	return p.launch(ctx)
}

// prepareSaved is prepare for a VM that continues another.
func prepareSaved(ctx context.Context, from *saved, config Config, watch *stopwatch) (*plan, error) {
	config = from.complete(config)
	if err := config.Validate(); err != nil {
		return nil, err
	}
	p := &plan{
		config: config.withDefaults(), watch: watch, id: newID(), over: make(chan struct{}), saved: from,
	}
	for _, step := range []func(context.Context) error{
		p.findDirs, p.planMounts, p.findImage, p.planMachine, p.planSaved, p.planNetwork,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	watch.lap("prepare")
	return p, nil
}

// complete fills in what the checkpoint says and config leaves open.
func (s *saved) complete(config Config) Config {
	if config.Image == "" {
		config.Image = s.about.ImageDigest
	}
	if config.Memory == 0 {
		config.Memory = s.about.Memory
	}
	if config.CPUs == 0 {
		config.CPUs = s.about.CPUs
	}
	if config.Hostname == "" {
		config.Hostname = s.about.Hostname
	}
	if config.Host.Accelerator == "" {
		config.Host.Accelerator = s.about.Accel
	}
	return config
}

// planSaved completes the machine, and compares everything with the checkpoint.
func (p *plan) planSaved(ctx context.Context) error {
	a, err := accel.Parse(p.config.Host.Accelerator)
	if err != nil {
		return err
	}
	p.machine.Accel = a
	p.machine, err = qemu.Complete(ctx, p.machine)
	if err != nil {
		return err
	}
	now, err := describe(p.config, p.image.Digest, p.machine, p.mounts)
	if err != nil {
		return err
	}
	about := p.saved.about
	if err := errors.Join(about.machineDiffers(now), about.worldDiffers(now, p.config.Accept)); err != nil {
		return err
	}
	p.mounts = about.orderMounts(p.mounts)
	p.machine.RAM = qemu.RAM{Path: p.saved.files.Path(checkpoint.RAM)}
	p.machine.Incoming = p.saved.files.Path(checkpoint.Devices)
	return nil
}

// startSaved starts the machine of a checkpoint.
func (p *plan) startSaved(ctx context.Context) (*qemu.Process, error) {
	m, err := qemu.Start(ctx, p.machine, qemu.Options{Log: p.config.Log})
	p.watch.lap("qemu")
	if err != nil {
		return nil, err
	}
	err = p.loadSaved(ctx, m)
	p.watch.lap("restore")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot restore the VM: %w", err), m.Close())
	}
	return m, nil
}

func (p *plan) loadSaved(ctx context.Context, m *qemu.Process) error {
	version, err := m.Version(ctx)
	if err != nil {
		return err
	}
	if was := p.saved.about.QEMU; version != was {
		return fmt.Errorf("the checkpoint was made by QEMU %s, and this is %s; only the same build can load it", was, version)
	}
	return m.Restore(ctx)
}

// fileServer makes the server of the plan's mounts; nil without any.
func (p *plan) fileServer() (*fsserver.Server, error) {
	if len(p.mounts) == 0 {
		return nil, nil
	}
	config := fsserver.Config{
		Mounts: fileSystems(p.mounts), Logger: p.config.Log, Limits: fsserver.Limits{Handles: maxHandles()},
	}
	if p.saved == nil {
		return fsserver.New(config), nil
	}
	state, err := p.saved.fileState()
	if err != nil {
		return nil, err
	}
	return fsserver.Resume(config, state)
}

// resume makes a guest that continues another this VM.
func (vm *VM) resume(ctx context.Context) error {
	env, ca, err := vm.identity()
	if err != nil {
		return err
	}
	ready, err := vm.control.Resume(ctx, wire.Resume{
		Hostname: vm.config.Hostname,
		Time:     time.Now().UnixNano(),
		Entropy:  entropy(),
		CA:       ca,
		Env:      env,
	})
	if err != nil {
		return vm.startFailure(err)
	}
	vm.ready = ready
	return nil
}
