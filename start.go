package gondolin

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"gondolin/internal/audit"
	"gondolin/internal/control"
	"gondolin/internal/egress"
	"gondolin/internal/guestbin"
	"gondolin/internal/image"
	"gondolin/internal/image/initramfs"
	"gondolin/internal/machine"
	"gondolin/internal/machine/accel"
	"gondolin/internal/machine/jail"
	"gondolin/internal/machine/qemu"
	"gondolin/internal/netstack"
	"gondolin/internal/paths"
	"gondolin/internal/session"
	"gondolin/internal/template"
	"gondolin/internal/wire"
	"gondolin/vfs"
)

// plan is all that is known of a VM before anything runs.
type plan struct {
	config  Config
	dirs    paths.Dirs
	image   *image.Image
	machine qemu.Machine
	mounts  []mount
	gateway *egress.Gateway
	id      string        // of the VM, in the audit
	audit   *audit.Log    // nil: no record
	over    chan struct{} // closed when the VM is being ended

	templates *template.Store
	template  *template.Template // nil: boot cold
	saved     *saved             // what the VM continues; nil: nothing
	watch     *stopwatch
	session   *session.Server // nil: no session
	jail      jail.Report     // around the VM that Diagnose started
}

// newPlan returns the plan of a VM that is to be started, of a config with its defaults.
func newPlan(config Config) *plan {
	return &plan{config: config, watch: newStopwatch(), id: newID(), over: make(chan struct{})}
}

// prepare turns a config into a plan. It starts nothing but, where an
// accelerator has not been tried before, a trial VM.
func prepare(ctx context.Context, config Config) (*plan, error) {
	p := newPlan(config)
	for _, step := range []func(context.Context) error{
		p.findDirs, p.planNetwork, p.planMounts, p.findImage, p.planMachine, p.chooseAccelerator, p.findTemplate,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	p.watch.lap("prepare")
	return p, nil
}

func (p *plan) findDirs(context.Context) (err error) {
	p.dirs, err = p.config.Host.dirs()
	return err
}

func (p *plan) planNetwork(context.Context) (err error) {
	p.audit = p.config.auditLog(p.id, p.over)
	up := p.config.Upstream
	p.gateway, err = egress.New(egress.Config{
		Policy:   p.config.Network,
		Audit:    p.audit,
		Capture:  p.config.Capture,
		Logger:   p.config.Log,
		Resolver: up.Resolver,
		Dialer:   up.DialContext,
		RootCAs:  up.RootCAs,
		Continue: p.saved.continues(),
	})
	return err
}

func (p *plan) planMounts(context.Context) (err error) {
	p.mounts, err = p.config.mounts()
	return err
}

func (p *plan) findImage(ctx context.Context) error {
	store, err := image.Open(p.dirs.Images())
	if err != nil {
		return err
	}
	p.image, err = store.Resolve(ctx, p.config.Image)
	return err
}

func (p *plan) planMachine(ctx context.Context) error {
	agent, err := p.agent()
	if err != nil {
		return err
	}
	initrd, err := initramfs.Compose(ctx, p.dirs.Initramfs(), initramfs.Parts{
		Modules: p.image.Modules, ModulesDigest: p.image.ModulesDigest, Agent: agent,
	})
	if err != nil {
		return err
	}
	p.machine = qemu.Machine{
		Binary:  p.config.Host.QEMU,
		Arch:    qemu.Arch(p.image.Arch),
		CPUs:    p.config.CPUs,
		Memory:  p.config.Memory,
		Kernel:  p.image.Kernel,
		Initrd:  initrd,
		Cmdline: append([]string{"rootfstype=" + p.image.RootFormat}, p.image.Cmdline...),
		Root:    qemu.Disk{Path: p.image.Root},
		MAC:     netstack.GuestMAC().String(),
	}
	return nil
}

// agent returns the guest agent's binary.
func (p *plan) agent() ([]byte, error) {
	if file := p.config.Host.Agent; file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("cannot read the guest agent: %w", err)
		}
		return b, nil
	}
	return guestbin.Open(p.image.Arch)
}

// launch makes the plan live.
func (p *plan) launch(ctx context.Context) (*VM, error) {
	err := p.audit.Record(audit.Event{Kind: audit.Lifecycle, Phase: "start", Source: p.image.Digest})
	if err != nil {
		return nil, fmt.Errorf("cannot start: it cannot be recorded: %w", err)
	}
	if err := p.listen(ctx); err != nil {
		return nil, p.launchFailed(err)
	}
	m, err := p.startMachine(ctx)
	if err != nil {
		return nil, p.launchFailed(err)
	}
	client, err := control.New(m.Control())
	if err != nil {
		m.Close()
		return nil, p.launchFailed(err)
	}
	files, err := p.fileServer()
	if err != nil {
		m.Close()
		client.Close()
		return nil, p.launchFailed(err)
	}
	vm := &VM{
		config: p.config, image: p.image, gateway: p.gateway, audit: p.audit, mounts: p.mounts, files: files,
		machine: m, control: client, jail: m.Jail(), session: p.session, started: time.Now(), ended: make(chan struct{}),
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx)) // the VM outlives the start
	vm.running, vm.stop = run, stop
	context.AfterFunc(run, func() { close(p.over) })
	go vm.run(run)
	if err := vm.introduce(ctx, p.saved); err != nil {
		vm.Close()
		return nil, err
	}
	p.watch.lap("guest")
	if err := vm.publish(ctx); err != nil {
		vm.Close()
		return nil, fmt.Errorf("cannot start: %w", err)
	}
	vm.timings = p.watch.timings
	vm.auditReady()
	vm.rest()
	return vm, nil
}

// launchFailed records that no VM came to be.
func (p *plan) launchFailed(err error) error {
	if p.session != nil {
		err = errors.Join(err, p.session.Close())
	}
	failed := p.audit.Record(audit.Event{Kind: audit.Lifecycle, Phase: "end", Reason: err.Error()})
	return errors.Join(err, failed)
}

// maxHandles leaves a guest a quarter of this process's descriptors, each open file of
// a mounted directory being one; 0 is fsserver's own bound.
func maxHandles() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur/4 >= 4096 {
		return 0
	}
	return max(1, int(limit.Cur/4)) //nolint:gosec // small
}

func fileSystems(mounts []mount) []vfs.FS {
	list := make([]vfs.FS, len(mounts))
	for i, m := range mounts {
		list[i] = m.fs
	}
	return list
}

// entropyBytes is what a guest's random generator is seeded with: twice its key.
const entropyBytes = 64

// introduce makes the guest this VM.
func (vm *VM) introduce(ctx context.Context, from *saved) error {
	timeout := fmt.Errorf("cannot start: the guest was not ready within %v", vm.config.StartTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, vm.config.StartTimeout, timeout)
	defer cancel()
	if from != nil {
		return vm.resume(ctx)
	}
	return vm.setup(ctx)
}

// identity returns what the guest is told of its environment and whom to trust.
func (vm *VM) identity() (env [][]byte, ca *wire.CA, err error) {
	env, err = vm.config.environ(vm.image.Env, vm.gateway.Env())
	if err != nil {
		return nil, nil, err
	}
	ca, err = certificate(vm.gateway.CACertPEM())
	return env, ca, err
}

func entropy() []byte {
	b := make([]byte, entropyBytes)
	_, _ = rand.Read(b) // never fails
	return b
}

// setup waits for the guest to boot and sets it up.
func (vm *VM) setup(ctx context.Context) error {
	env, ca, err := vm.identity()
	if err != nil {
		return err
	}
	ready, err := vm.control.Setup(ctx, wire.Setup{
		Hostname: vm.config.Hostname,
		Time:     time.Now().UnixNano(),
		Entropy:  entropy(),
		Network:  guestNetwork(),
		CA:       ca,
		Env:      env,
		Files:    vm.files != nil,
		Mounts:   wireMounts(vm.mounts),
	})
	if err != nil {
		return vm.startFailure(err)
	}
	vm.ready = ready
	return nil
}

// guestNetwork is the same for every VM: each is alone on its network.
func guestNetwork() *wire.Network {
	return &wire.Network{
		Address: netstack.GuestAddr.String(),
		Gateway: netstack.Gateway.String(),
		DNS:     netstack.DNS.Addr().String(),
		MTU:     netstack.MTU,
	}
}

// startFailure adds what the console shows, unless the machine's own error does.
func (vm *VM) startFailure(err error) error {
	if errors.Is(err, control.ErrClosed) {
		if err := vm.awaitEnd(); err != nil {
			return err
		}
		return fmt.Errorf("cannot start: %w", vm.Err())
	}
	if failed, ok := errors.AsType[*wire.Failed](err); ok { // the guest's words
		err = errors.New("cannot set the guest up: " + machine.Sanitize([]byte(failed.Text)))
	}
	return consoleError(err, vm.machine.Console())
}

func wireMounts(mounts []mount) []wire.Mount {
	list := make([]wire.Mount, len(mounts))
	for i, m := range mounts {
		list[i] = wire.Mount{Path: m.path, Source: strconv.Itoa(i)}
	}
	return list
}

// chooseAccelerator settles what runs the guest's instructions.
func (p *plan) chooseAccelerator(ctx context.Context) error {
	cfg, err := p.probeConfig()
	if err != nil {
		return err
	}
	p.machine.Accel, _, err = accel.Choose(ctx, cfg)
	return err
}
