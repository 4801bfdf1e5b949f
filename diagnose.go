package gondolin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"gondolin/internal/image"
	"gondolin/internal/machine"
	"gondolin/internal/machine/accel"
)

// Finding is what [Diagnose] found out about one thing a VM needs.
type Finding struct {
	Name   string // "QEMU", "image", …
	Works  bool
	Detail string // one or more lines
}

// Diagnose checks everything Start needs on this host, the accelerator by a trial
// boot if none is remembered, and starts a VM. What it leaves behind is what any start
// does: directories and caches. The error is ctx's.
func Diagnose(ctx context.Context, config Config) ([]Finding, error) {
	p := newPlan(config.withDefaults())
	var findings []Finding
	for _, check := range []struct {
		name string
		run  func(context.Context) (string, error)
	}{
		{"configuration", p.diagnoseConfig},
		{"image", p.diagnoseImage},
		{"QEMU", p.diagnoseQEMU},
		{"accelerator", p.diagnoseAccelerator},
		{"start", p.diagnoseStart},
		{"jail", p.diagnoseJail},
	} {
		detail, err := check.run(ctx)
		if ctx.Err() != nil {
			return findings, context.Cause(ctx)
		}
		if err != nil {
			detail = err.Error()
		}
		findings = append(findings, Finding{Name: check.name, Works: err == nil, Detail: machine.Sanitize([]byte(detail))})
		if err != nil {
			return findings, nil //nolint:nilerr // it is the last finding; the rest would need it
		}
	}
	return findings, nil
}

// Forget drops what is remembered about accelerators for this image on this
// host, so that the next start tries them again.
func Forget(ctx context.Context, config Config) error {
	p := &plan{config: config.withDefaults()}
	for _, step := range []func(context.Context) error{p.findDirs, p.findImage, p.planMachine} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	cfg, err := p.probeConfig()
	if err != nil {
		return err
	}
	return accel.Forget(ctx, cfg)
}

func (p *plan) diagnoseConfig(ctx context.Context) (string, error) {
	if err := p.config.Validate(); err != nil {
		return "", err
	}
	for _, step := range []func(context.Context) error{p.findDirs, p.planNetwork, p.planMounts} {
		if err := step(ctx); err != nil {
			return "", err
		}
	}
	return "data in " + p.dirs.Data + ", cache in " + p.dirs.Cache, nil
}

func (p *plan) diagnoseImage(ctx context.Context) (string, error) {
	if err := p.findImage(ctx); err != nil {
		return "", err
	}
	return describeImage(p.image), nil
}

func describeImage(img *image.Image) string {
	return fmt.Sprintf("%s, %s, Linux %s, %s", cmp.Or(img.Ref, img.Digest), img.OS, img.KernelVersion, img.Arch)
}

func (p *plan) diagnoseQEMU(ctx context.Context) (string, error) {
	if err := p.planMachine(ctx); err != nil {
		return "", err
	}
	if _, err := p.probeConfig(); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, p.machine.Binary, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("cannot run %s --version: %w", p.machine.Binary, err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return p.machine.Binary + ": " + first, nil
}

func (p *plan) diagnoseAccelerator(ctx context.Context) (string, error) {
	cfg, err := p.probeConfig()
	if err != nil {
		return "", err
	}
	chosen, verdict, err := accel.Choose(ctx, cfg)
	if err != nil {
		return "", err
	}
	p.machine.Accel = chosen
	if verdict.Accel == chosen {
		return string(chosen) + " (" + string(verdict.Source) + ")", nil
	}
	return fmt.Sprintf("%s: emulation, several times slower than %s, which does not work here:\n%s (%s)",
		chosen, verdict.Accel, verdict.Why, verdict.Source), nil
}

func (p *plan) diagnoseStart(ctx context.Context) (string, error) {
	begin := time.Now()
	vm, err := p.launch(ctx)
	if err != nil {
		return "", err
	}
	defer vm.Close()
	took := time.Since(begin)
	out, err := vm.Command(ctx, "uname", "-sr").Output()
	if err != nil {
		return "", err
	}
	p.jail = vm.jail
	if err := vm.Close(); err != nil && !errors.Is(err, ErrClosed) {
		return "", err
	}
	return fmt.Sprintf("%s in %.1f s", strings.TrimSpace(string(out)), took.Seconds()), nil
}

// diagnoseJail tells of the jail around the VM that diagnoseStart has started. A
// layer that is missing is no failure: the VM runs, with one wall less.
func (p *plan) diagnoseJail(context.Context) (string, error) {
	if missing := p.jail.Missing(); len(missing) > 0 {
		return fmt.Sprintf("without %s\n%s", strings.Join(missing, ", "), p.jail), nil
	}
	return "complete\n" + p.jail.String(), nil
}
