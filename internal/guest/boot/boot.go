//go:build linux

// Package boot takes the guest from the kernel's first user process, running
// in the initramfs, to a running system on the root image: modules loaded, the
// image mounted read-only under a writable overlay, the kernel's file systems
// in place. It knows nothing of the host but the names of its two ports.
package boot

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"gondolin/internal/wire"

	"golang.org/x/sys/unix"
)

// ModuleList names the modules to load, one absolute path a line, in load
// order. The image's part of the initramfs holds it.
const ModuleList = "/etc/gondolin/modules"

// newRoot is where the root image is put together before it becomes "/".
const newRoot = "/newroot"

// Cgroups is the cgroup v2 directory below which commands get theirs.
const Cgroups = "/sys/fs/cgroup/gondolin"

// Timeline notes when each step of the boot ended.
type Timeline struct {
	Steps []wire.Step

	start time.Duration // since kernel start
}

// Mark notes that a step ended now.
func (t *Timeline) Mark(name string) {
	t.Steps = append(t.Steps, wire.Step{Name: name, Since: sinceKernelStart() - t.start})
}

// Restart forgets all steps and counts from now.
func (t *Timeline) Restart() { *t = Timeline{start: sinceKernelStart()} }

func sinceKernelStart() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// steps are run in order; the first error ends the boot.
var steps = []struct {
	name string
	run  func() error
}{
	{"kernel file systems", mountKernel},
	{"modules", loadModules},
	{"root image", mountRoot},
	{"switch root", switchRoot},
	{"system", mountSystem},
	{"limits", raiseLimits},
}

// Run boots. An error is final: the caller should end the VM.
func Run(log *slog.Logger, t *Timeline) error {
	for _, s := range steps {
		if err := s.run(); err != nil {
			return fmt.Errorf("cannot boot: %s: %w", s.name, err)
		}
		t.Mark(s.name)
		log.Debug("booted", "step", s.name)
	}
	return nil
}

// mount is one mount(2).
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

func (m mount) make() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil { //nolint:gosec // system directories are world-readable
		return err
	}
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return fmt.Errorf("cannot mount %s at %s: %w", m.fstype, m.target, err)
	}
	return nil
}

func mountAll(mounts ...mount) error {
	for _, m := range mounts {
		if err := m.make(); err != nil {
			return err
		}
	}
	return nil
}

const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

func mountKernel() error {
	return mountAll(
		mount{"proc", "/proc", "proc", quiet, ""},
		mount{"sysfs", "/sys", "sysfs", quiet, ""},
		mount{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
	)
}

// loadModules loads what the list names. The list is part of the image, which the
// host verified.
func loadModules() error {
	list, err := os.ReadFile(ModuleList)
	if err != nil {
		return fmt.Errorf("cannot read the module list: %w", err)
	}
	for path := range strings.Lines(string(list)) {
		if path = strings.TrimSpace(path); path == "" {
			continue
		}
		if err := loadModule(path); err != nil {
			return err
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot open module: %w", err)
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err != nil && !errors.Is(err, unix.EEXIST) { // EEXIST: built in or loaded
		return fmt.Errorf("cannot load module %s: %w", path, err)
	}
	return os.Remove(path) // the initramfs is memory
}

// rootType is the root image's file system: the kernel parameter rootfstype.
func rootType() string {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "erofs"
	}
	for word := range strings.FieldsSeq(string(line)) {
		if v, ok := strings.CutPrefix(word, "rootfstype="); ok {
			return v
		}
	}
	return "erofs"
}

// mountRoot mounts the image read-only and over it an overlay that takes the
// writes, in memory.
func mountRoot() error {
	const device = "/dev/vda"
	if err := awaitDevice(device); err != nil {
		return err
	}
	err := mountAll(
		mount{device, "/image", rootType(), unix.MS_RDONLY | unix.MS_NODEV, ""},
		mount{"tmpfs", "/writes", "tmpfs", 0, "mode=0755,size=75%"},
	)
	if err != nil {
		return err
	}
	for _, dir := range []string{"/writes/upper", "/writes/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // becomes the guest's "/"
			return err
		}
	}
	return mount{"root", newRoot, "overlay", 0, "lowerdir=/image,upperdir=/writes/upper,workdir=/writes/work"}.make()
}

// switchRoot makes newRoot "/" (what switch_root(8) does; pivot_root(2) does
// not work on the initramfs).
func switchRoot() error {
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		target := newRoot + dir
		if err := os.MkdirAll(target, 0o755); err != nil { //nolint:gosec // system directories are world-readable
			return err
		}
		if err := unix.Mount(dir, target, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("cannot move %s: %w", dir, err)
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("cannot move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("cannot change root: %w", err)
	}
	return os.Chdir("/")
}

func mountSystem() error {
	err := mountAll(
		mount{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"},
		mount{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		mount{"mqueue", "/dev/mqueue", "mqueue", quiet, ""},
		mount{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
		mount{"cgroup2", "/sys/fs/cgroup", "cgroup2", quiet, ""},
	)
	if err != nil {
		return err
	}
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, link); err != nil {
			return err
		}
	}
	for dir, mode := range map[string]os.FileMode{
		"/tmp": 0o1777, "/run/lock": 0o1777, "/run/gondolin": 0o755, Cgroups: 0o755,
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // system directories are world-readable
			return err
		}
		if err := unix.Chmod(dir, uint32(mode)); err != nil && dir != Cgroups {
			return fmt.Errorf("cannot set the mode of %s: %w", dir, err)
		}
	}
	return nil
}

// raiseLimits gives commands the descriptor limits systemd gives services: a
// low soft limit, for programs that use select(2), and a high hard one.
func raiseLimits() error {
	limit := syscall.Rlimit{Cur: 1024, Max: 512 << 10}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("cannot set the descriptor limit: %w", err)
	}
	return nil
}
