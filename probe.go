package gondolin

import (
	"context"

	"gondolin/internal/control"
	"gondolin/internal/machine/accel"
	"gondolin/internal/machine/qemu"
	"gondolin/internal/wire"
)

// probeConfig describes how to find out which accelerator works for this plan.
func (p *plan) probeConfig() (accel.Config, error) {
	binary, err := qemu.Locate(p.machine.Binary, p.machine.Arch)
	if err != nil {
		return accel.Config{}, err
	}
	p.machine.Binary = binary
	key, err := accel.KeyFor(p.machine.Binary, p.image.Digest, "")
	if err != nil {
		return accel.Config{}, err
	}
	return accel.Config{
		Platform: accel.Platform{GuestArch: p.image.Arch},
		Override: accel.Accel(p.config.Host.Accelerator),
		Key:      key,
		Dir:      p.dirs.Cache,
		Boot:     p.tryAccelerator,
		Log:      p.config.Log,
	}, nil
}

// tryAccelerator boots the plan's image with a until the agent answers, and
// leaves nothing behind.
func (p *plan) tryAccelerator(ctx context.Context, a accel.Accel) error {
	machine := p.machine
	machine.Accel = a
	m, err := qemu.Start(ctx, machine, qemu.Options{Log: p.config.Log})
	if err != nil {
		return err
	}
	defer m.Close()
	client, err := control.New(m.Control())
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Setup(ctx, wire.Setup{})
	return bootFailure(m, err)
}
