package build

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gondolin/internal/image"
	"gondolin/internal/image/initramfs"
)

//go:embed hook.sh
var hook []byte

// defaultPackages is what the default image has besides Debian's essential packages: what agents expect anywhere.
var defaultPackages = []string{
	"bash", "ca-certificates", "coreutils", "curl", "git", "iproute2", "openssl", "procps", "python3",
}

// defaultEnv is the environment commands get unless they bring their own.
var defaultEnv = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
}

// Event is one report of progress.
type Event struct {
	Step   string // what is being done, such as "install packages"
	Index  int    // of the step, from 1
	Steps  int    // how many there are
	Detail string // what the step is busy with; if empty, it has just begun
}

// Options say what to build. The zero value builds the default image.
type Options struct {
	Refs     []string    // names for the image; if empty, debian:latest and debian:<release>
	Packages []string    // Debian packages besides the default ones
	Progress func(Event) // called during Debian, by one goroutine at a time; if nil, nothing is reported
}

// builder is one build.
type builder struct {
	opts  Options
	store *image.Store
	etc   string // /etc, or a test's
	uid   int    // only 0 can build
	free  func(dir string) (uint64, error)

	host     host
	staging  *image.Staging
	work     string // in staging
	root     string // the new root file system's directory
	started  time.Time
	out      string // the image's directory, in work
	manifest image.Manifest
	step     Event
}

// Debian builds a Debian image of the host's release and architecture, adds it to the store and returns its digest.
// Only one build runs at a time in a store; others wait.
func Debian(ctx context.Context, store *image.Store, opts Options) (string, error) {
	b := &builder{opts: opts, store: store, etc: "/etc", uid: os.Geteuid(), free: freeBytes}
	return b.build(ctx)
}

func (b *builder) build(ctx context.Context) (digest string, err error) {
	if runtime.GOOS != "linux" {
		return "", errors.New("cannot build an image here: it takes a Debian host; build it on one and copy the directory")
	}
	unlock, err := b.store.Lock(ctx, "build", func() { b.report(Event{Step: "wait for another build"}) })
	if err != nil {
		return "", err
	}
	defer unlock()
	b.staging, err = b.store.Stage()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, b.staging.Close()) }()
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"check tools and space", b.prepare},
		{"install packages", b.install},
		{"unpack kernel", b.kernel},
		{"collect modules", b.modules},
		{"tidy root", b.tidy},
		{"make root file system", b.erofs},
	}
	for i, s := range steps {
		b.step = Event{Step: s.name, Index: i + 1, Steps: len(steps) + 1}
		b.report(b.step)
		if err := s.do(ctx); err != nil {
			return "", b.explain(s.name, err)
		}
	}
	b.report(Event{Step: "add to store", Index: len(steps) + 1, Steps: len(steps) + 1})
	digest, err = b.staging.Add(ctx, b.out, &b.manifest, b.refs()...)
	if err != nil {
		return "", b.explain("add to store", err)
	}
	return digest, nil
}

func (b *builder) report(e Event) {
	if b.opts.Progress != nil {
		b.opts.Progress(e)
	}
}

func (b *builder) refs() []string {
	if len(b.opts.Refs) > 0 {
		return b.opts.Refs
	}
	return []string{image.DefaultRef, "debian:" + b.host.codename}
}

// explain adds to an error what a person can do about it.
func (b *builder) explain(step string, err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("cannot build image: interrupted at step %q: %w", step, err)
	case errors.Is(err, errUnreachable):
		return fmt.Errorf("cannot build image: %w\ncheck that apt-get update works on this host; the image is built from the same sources", err)
	case errors.Is(err, errNoSpace), errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("cannot build image: the disk of %s is full; a build needs %.1f GiB free there: %w", b.store.Dir(), gib(needBytes), err)
	default:
		return fmt.Errorf("cannot build image: %s: %w", step, err)
	}
}

// gib converts bytes.
func gib(n uint64) float64 { return float64(n) / (1 << 30) }

var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)

func (b *builder) prepare(context.Context) error {
	for _, name := range []string{"mmdebstrap", "mkfs.erofs", "apt-get", "apt-config", "dpkg-deb"} {
		if _, err := findTool(name); err != nil {
			return err
		}
	}
	if b.uid != 0 {
		return errors.New("it takes root to make a root file system; build as root with GONDOLIN_HOME set to a new directory, " +
			"then chown -R that directory to yourself and set GONDOLIN_HOME to it")
	}
	for _, ref := range b.opts.Refs {
		if _, err := image.ParseRef(ref); err != nil {
			return err
		}
	}
	for _, p := range b.opts.Packages {
		if !packageName.MatchString(p) {
			return fmt.Errorf("%q is not the name of a package", p)
		}
	}
	var err error
	if b.host, err = readHost(b.etc); err != nil {
		return err
	}
	free, err := b.free(b.staging.Dir)
	if err != nil {
		return err
	}
	if free < needBytes {
		return fmt.Errorf("%w: %.1f GiB are free", errNoSpace, gib(free))
	}
	b.work, b.root, b.out = b.staging.Dir, filepath.Join(b.staging.Dir, "root"), filepath.Join(b.staging.Dir, "image")
	if err := os.WriteFile(filepath.Join(b.work, "hook.sh"), hook, 0o700); err != nil { //nolint:gosec // it is executed
		return err
	}
	return os.Mkdir(b.out, 0o700)
}

func freeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("cannot tell the free space of %s: %w", dir, err)
	}
	return st.Bavail * uint64(max(st.Bsize, 0)), nil
}

// install has mmdebstrap make the root file system and download the kernel.
func (b *builder) install(ctx context.Context) error {
	sources, err := b.host.sources()
	if err != nil {
		return err
	}
	var list strings.Builder
	for _, s := range sources {
		list.WriteString(s.line() + "\n")
	}
	listFile := filepath.Join(b.work, "sources.list")
	if err := os.WriteFile(listFile, []byte(list.String()), 0o600); err != nil {
		return err
	}
	bin, err := findTool("mmdebstrap")
	if err != nil {
		return err
	}
	args, err := b.mmdebstrapArgs(ctx, listFile)
	if err != nil {
		return err
	}
	b.started = time.Now().Add(-time.Second) // files are stamped with the kernel's coarser clock
	cmd := b.command(ctx, bin, args...)
	cmd.Dir = b.work
	cmd.Env = append(cmd.Env, "TMPDIR="+b.work)
	return run(ctx, cmd, func(line string) {
		// Its own messages about the hook hold a whole shell command; the hook has messages of its own.
		if detail, ok := strings.CutPrefix(line, "I: "); ok && !strings.Contains(detail, "hook") {
			b.report(Event{Step: b.step.Step, Index: b.step.Index, Steps: b.step.Steps, Detail: strings.TrimSuffix(detail, "...")})
		}
	})
}

func (b *builder) mmdebstrapArgs(ctx context.Context, listFile string) ([]string, error) {
	bin, err := findTool("apt-config")
	if err != nil {
		return nil, err
	}
	dump, err := command(ctx, bin, "dump").Output()
	if err != nil {
		return nil, fmt.Errorf("cannot read apt's configuration: %w", err)
	}
	packages := slices.Concat(defaultPackages, b.opts.Packages)
	slices.Sort(packages)
	args := []string{
		"--mode=root", "--variant=minbase", "--format=directory",
		"--include=" + strings.Join(slices.Compact(packages), ","),
		`--aptopt=Acquire::Languages "none"`,
		`--aptopt=APT::Install-Recommends "false"`,
	}
	for _, option := range aptOptions(string(dump)) {
		args = append(args, "--aptopt="+option)
	}
	// These stay in the image, so that packages a guest installs are as small.
	for _, path := range []string{"doc/*", "man/*", "info/*", "lintian/*", "locale/*"} {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/"+path)
	}
	return append(args,
		"--dpkgopt=path-include=/usr/share/doc/*/copyright",
		"--dpkgopt=path-include=/usr/share/locale/locale.alias",
		"--customize-hook="+shellQuote(filepath.Join(b.work, "hook.sh"))+" "+kernelPackage(runtime.GOARCH)+` "$1"`,
		b.host.codename, b.root, listFile), nil
}

func kernelPackage(arch string) string { return "linux-image-cloud-" + arch }

// shellQuote makes s one word of a shell command.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// kernel unpacks the downloaded kernel package and keeps its kernel.
func (b *builder) kernel(ctx context.Context) error {
	private := filepath.Join(b.root, ".gondolin")
	packages, err := os.ReadFile(filepath.Join(private, "packages"))
	if err != nil {
		return err
	}
	b.manifest.Packages = strings.Split(strings.TrimSpace(string(packages)), "\n")
	slices.Sort(b.manifest.Packages)
	debs, err := fs.Glob(os.DirFS(private), "linux-image-*.deb")
	if err != nil {
		return err
	}
	if len(debs) != 1 {
		return fmt.Errorf("%d kernel packages were downloaded, want 1", len(debs))
	}
	bin, err := findTool("dpkg-deb")
	if err != nil {
		return err
	}
	to := filepath.Join(b.work, "kernel")
	if err := run(ctx, b.command(ctx, bin, "--extract", filepath.Join(private, debs[0]), to), nil); err != nil {
		return err
	}
	images, err := fs.Glob(os.DirFS(to), "boot/vmlinuz-*")
	if err != nil {
		return err
	}
	if len(images) != 1 {
		return fmt.Errorf("%d kernels in %s, want 1", len(images), debs[0])
	}
	b.manifest.KernelVersion = strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	b.manifest.Kernel.Name = "kernel"
	if err := os.Rename(filepath.Join(to, images[0]), filepath.Join(b.out, "kernel")); err != nil {
		return err
	}
	return os.RemoveAll(private)
}

// modules archives the modules a guest boots with.
func (b *builder) modules(ctx context.Context) error {
	root := filepath.Join(b.work, "kernel", "lib", "modules", b.manifest.KernelVersion)
	if _, err := os.Stat(root); err != nil {
		root = filepath.Join(b.work, "kernel", "usr", "lib", "modules", b.manifest.KernelVersion)
	}
	k, err := openModules(root)
	if err != nil {
		return err
	}
	mods, err := k.closure(ctx, bootModules)
	if err != nil {
		return err
	}
	for _, m := range mods {
		b.manifest.ModuleOrder = append(b.manifest.ModuleOrder, initramfs.ModulePath(m.Name))
	}
	b.manifest.Modules.Name = "modules.cpio"
	f, err := os.OpenFile(filepath.Join(b.out, b.manifest.Modules.Name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := initramfs.Modules(f, mods); err != nil {
		return err
	}
	return f.Close()
}

// rootUUID is fixed, so that the same packages make the same image.
const rootUUID = "676f6e64-6f6c-496e-8000-000000000001"

// erofs makes the root file system. The options are those of erofs-utils 1.5, and the result is for kernels from 5.16.
func (b *builder) erofs(ctx context.Context) error {
	bin, err := findTool("mkfs.erofs")
	if err != nil {
		return err
	}
	b.manifest.Root.Name, b.manifest.RootFormat = "root.erofs", image.RootErofs
	b.manifest.Arch, b.manifest.OS, b.manifest.Env = runtime.GOARCH, b.host.pretty, defaultEnv
	b.manifest.Cmdline = []string{}
	// Times of files stay: Python compares them with its compiled files'.
	cmd := b.command(ctx, bin, "-zlz4", "-C65536", "--preserve-mtime", "-U"+rootUUID, "--quiet",
		filepath.Join(b.out, b.manifest.Root.Name), b.root)
	epoch, err := b.epoch()
	if err != nil {
		return err
	}
	cmd.Env = append(cmd.Env, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch.Unix()))
	return run(ctx, cmd, nil)
}

// epoch is the time of the newest file that came from a package: nothing in the image is newer.
func (b *builder) epoch() (time.Time, error) {
	var newest time.Time
	err := filepath.WalkDir(b.root, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && e.Type().IsRegular() && info.ModTime().Before(b.started) && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
		return err
	})
	return cmp.Or(newest, time.Unix(0, 0)), err
}
