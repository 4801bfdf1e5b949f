package gondolin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"gondolin/internal/control"
	"gondolin/internal/machine"
	"gondolin/internal/machine/accel"
	"gondolin/internal/machine/qemu"
	"gondolin/internal/template"
	"gondolin/internal/wire"
)

// templateFormat changes with everything that may differ between two versions of
// this program that use the same files: above all QEMU's arguments.
const templateFormat = 2

// findTemplate finds, or makes, the template of this plan. A template that cannot
// be had is no reason not to start: the VM then boots.
func (p *plan) findTemplate(ctx context.Context) error {
	if p.config.Cold {
		return nil
	}
	t, err := p.getTemplate(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if failed, ok := errors.AsType[*template.FailedError](err); ok {
		p.config.Log.Info("booting without a template", "error", failed)
		return nil
	}
	if err != nil {
		p.config.Log.Warn("booting without a template", "error", err)
		return nil
	}
	p.template = t
	return nil
}

func (p *plan) getTemplate(ctx context.Context) (*template.Template, error) {
	key, err := p.templateKey()
	if err != nil {
		return nil, err
	}
	p.templates, err = template.Open(p.dirs.Templates(), accel.BootID())
	if err != nil {
		return nil, err
	}
	about := template.About{Image: p.image.Ref, Boot: accel.BootID(), Shape: fmt.Sprintf(
		"%d MiB, %d CPUs, %s", p.machine.Memory>>20, p.machine.CPUs, p.machine.Accel)}
	return p.templates.Get(ctx, key, about, p.saveTemplate, func(what string) {
		p.config.Log.Warn("template", "what", what)
	})
}

// templateKey covers everything that a template and its clones may not differ in.
// The host's boot stands for its kernel and its processor.
func (p *plan) templateKey() (string, error) {
	host, err := accel.KeyFor(p.machine.Binary, p.image.Digest, "")
	if err != nil {
		return "", err
	}
	m := p.machine
	m.Initrd = filepath.Base(m.Initrd) // a digest of what is in it
	raw, err := json.Marshal(struct {
		Format  int
		Host    accel.Key
		Machine qemu.Machine
	}{templateFormat, host, m})
	if err != nil {
		return "", fmt.Errorf("cannot name the template: %w", err)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:]), nil
}

// saveTemplate boots the plan's machine with its memory in the file ram until
// the agent waits for its setup, and saves the devices' state.
func (p *plan) saveTemplate(ctx context.Context, ram, state string) error {
	p.config.Log.Info("booting once to make a template", "image", p.image.Ref)
	description := p.machine
	description.RAM = qemu.RAM{Path: ram, Shared: true}
	m, err := qemu.Start(ctx, description, qemu.Options{Log: p.config.Log})
	if err != nil {
		return err
	}
	defer m.Close()
	client, err := control.New(m.Control())
	if err != nil {
		return err
	}
	defer client.Close() // not before the save: the guest would see the host hang up
	if err := p.quiesce(ctx, m, client); err != nil {
		return err
	}
	file, err := os.OpenFile(state, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(m.Save(ctx, file), file.Close())
}

func (p *plan) quiesce(ctx context.Context, m machine.Machine, client *control.Client) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.config.StartTimeout,
		fmt.Errorf("the guest was not ready within %v", p.config.StartTimeout))
	defer cancel()
	err := client.Quiesce(ctx, wire.Quiesce{Network: guestNetwork()})
	return bootFailure(m, err)
}

// startMachine starts a clone of the plan's template, or boots.
func (p *plan) startMachine(ctx context.Context) (*qemu.Process, error) {
	if p.saved != nil {
		return p.startSaved(ctx)
	}
	if p.template == nil {
		defer p.watch.lap("qemu")
		return qemu.Start(ctx, p.machine, qemu.Options{Log: p.config.Log})
	}
	m, err := p.startClone(ctx)
	if err == nil || ctx.Err() != nil {
		return m, err
	}
	p.config.Log.Warn("cannot use the template; booting", "error", err)
	p.templates.Fail(p.template.Key, err)
	p.template = nil
	defer p.watch.lap("qemu")
	return qemu.Start(ctx, p.machine, qemu.Options{Log: p.config.Log})
}

func (p *plan) startClone(ctx context.Context) (*qemu.Process, error) {
	description := p.machine
	description.RAM = qemu.RAM{Path: p.template.RAM}
	description.Incoming = p.template.State
	m, err := qemu.Start(ctx, description, qemu.Options{Log: p.config.Log})
	p.watch.lap("qemu")
	if err != nil {
		return nil, err
	}
	if err := m.Restore(ctx); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	p.watch.lap("restore")
	return m, nil
}
