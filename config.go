package gondolin

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"gondolin/policy"
	"gondolin/vfs"
)

// Defaults of [Config].
const (
	DefaultImage        = "debian"
	DefaultMemory       = 1 << 30 // bytes
	DefaultCPUs         = 2
	DefaultStartTimeout = 2 * time.Minute
)

// RootMount is where a mount of "/" appears: the guest's own "/" is its image.
const RootMount = "/data"

// Config describes a VM. It is plain data; the zero value is a VM with the
// default image, no mounts, and no network.
type Config struct {
	// Image names the root image: name[:tag], a digest, or a directory. Empty: [DefaultImage].
	Image string
	// Memory is the guest's memory in bytes, a multiple of 1 MiB. 0: [DefaultMemory].
	// What the guest writes to its root disk counts towards it.
	Memory int64
	// CPUs is the number of virtual processors. 0: [DefaultCPUs].
	CPUs int
	// Hostname is the guest's name. Empty: "gondolin".
	Hostname string
	// Env is the environment of every command, over the image's own.
	Env map[string]string

	// Network is what the guest may reach. The zero value: nothing.
	Network policy.Network
	// Mounts are the file systems the guest sees, by absolute path. "/" appears at
	// [RootMount].
	Mounts map[string]vfs.FS

	// Audit receives one JSON object a line for every event: DNS answers,
	// connections, requests, commands, what the VM does. nil: none. After it, or one
	// of the fields below, has failed to take one, requests, connections and
	// commands are refused.
	Audit io.Writer
	// AuditFile receives the same, and is what can be verified afterwards; several
	// VMs may share it. nil: none.
	AuditFile *AuditFile
	// AuditLog receives the same as log records. nil: none.
	AuditLog *slog.Logger
	// AuditEvents receives the same as values. It must be received from until the VM
	// is closed: the guest waits meanwhile. nil: none.
	AuditEvents chan<- AuditEvent
	// Capture receives the frames the guest sends and gets, 1 GiB at most, as a
	// pcapng file; VMs may share an [os.File]. The guest's network waits for each
	// Write; one that fails is logged and is the last. nil: none.
	Capture io.Writer
	// Log receives what the library wants known. nil: nothing.
	Log *slog.Logger

	// Cold boots the guest. Otherwise the first start of an image on a machine of one
	// shape boots and keeps the booted guest as a template, and every later one is a
	// copy-on-write clone of it.
	Cold bool

	// IdlePause pauses the VM when no command has run for so long; see [VM.Pause].
	// What the guest does in the background stands still too. 0: never.
	IdlePause time.Duration

	// Accept is in what a restored VM may differ from the one that was saved; see
	// [Restore]. It does nothing otherwise.
	Accept Difference

	// StartTimeout bounds Start, and before it, each by itself, a first trial of the
	// accelerator and the making of a template. 0: [DefaultStartTimeout].
	StartTimeout time.Duration
	// Session makes the VM known to other processes of the same user. nil: it is not.
	Session *Session

	// Upstream replaces how the host reaches the outside.
	Upstream Upstream
	// Host replaces what the host provides.
	Host Host
}

// Upstream is how the host reaches what the guest is allowed to reach. The zero
// value uses the host's resolver, its network and its trusted roots.
type Upstream struct {
	// Resolver resolves the names the guest asks for. nil: net.DefaultResolver.
	Resolver Resolver
	// DialContext connects to an address that was checked. nil: a net.Dialer.
	DialContext func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error)
	// RootCAs are the roots servers must present. nil: the host's.
	RootCAs *x509.CertPool
}

// Resolver is the part of net.Resolver that is needed.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Host is what a VM needs of its host. The zero value finds everything itself.
type Host struct {
	// Dir holds images, caches and verdicts. Empty: $GONDOLIN_HOME, or the XDG directories.
	Dir string
	// Accelerator is "kvm", "hvf" or "tcg". Empty: the best that is proven to work.
	Accelerator string
	// QEMU is the QEMU binary. Empty: the one in PATH for the image's architecture.
	QEMU string
	// Agent is the guest agent's binary. Empty: the one built in.
	Agent string
}

func (c Config) withDefaults() Config {
	if c.Image == "" {
		c.Image = DefaultImage
	}
	if c.Memory == 0 {
		c.Memory = DefaultMemory
	}
	if c.CPUs == 0 {
		c.CPUs = DefaultCPUs
	}
	if c.Hostname == "" {
		c.Hostname = "gondolin"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = DefaultStartTimeout
	}
	return c
}

// Limits of a machine: the least Linux boots in with the default image, and
// what is a mistake on any machine this runs on.
const (
	minMemory = 128 << 20
	maxMemory = 1 << 40
	maxCPUs   = 128
	mebibyte  = 1 << 20
)

// Validate reports the first thing in c that cannot work. [Start] calls it.
func (c Config) Validate() error {
	c = c.withDefaults()
	switch {
	case c.Memory < minMemory || c.Memory >= maxMemory:
		return fmt.Errorf("cannot use memory of %d bytes: give 128 MiB or more, and less than 1 TiB", c.Memory)
	case c.Memory%mebibyte != 0:
		return fmt.Errorf("cannot use memory of %d bytes: give a multiple of 1 MiB", c.Memory)
	case c.CPUs < 1 || c.CPUs > maxCPUs:
		return fmt.Errorf("cannot use %d CPUs: give 1 to %d", c.CPUs, maxCPUs)
	case runtime.GOOS != "linux" && runtime.GOOS != "darwin":
		return fmt.Errorf("cannot run VMs on %s: only Linux and macOS", runtime.GOOS)
	}
	if err := checkHostname(c.Hostname); err != nil {
		return err
	}
	if err := c.Session.validate(); err != nil {
		return err
	}
	for name := range c.Env {
		if err := checkEnvName(name); err != nil {
			return err
		}
	}
	_, err := c.mounts()
	return err
}

func checkHostname(name string) error {
	valid := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.'
	}
	if len(name) > 63 || strings.HasPrefix(name, "-") || strings.IndexFunc(name, func(r rune) bool { return !valid(r) }) >= 0 {
		return fmt.Errorf("cannot use hostname %q: up to 63 letters, digits, dots and hyphens", name)
	}
	return nil
}

func checkEnvName(name string) error {
	if name == "" || strings.ContainsAny(name, "=\x00") {
		return fmt.Errorf("cannot use %q as the name of an environment variable", name)
	}
	return nil
}

// mount is one mount with the path it gets in the guest.
type mount struct {
	path string
	fs   vfs.FS
}

// mounts checks the mounts and returns them in the order to mount them: a path
// before the paths below it.
func (c Config) mounts() ([]mount, error) {
	seen := make(map[string]string)
	var list []mount
	for _, at := range slices.Sorted(maps.Keys(c.Mounts)) {
		fsys := c.Mounts[at]
		clean, err := mountPath(at)
		switch {
		case err != nil:
			return nil, err
		case fsys == nil:
			return nil, fmt.Errorf("cannot mount at %s: no file system given", at)
		case seen[clean] != "":
			return nil, fmt.Errorf("cannot mount at %s: %s is the same place", at, seen[clean])
		}
		if checker, ok := fsys.(vfs.Checker); ok {
			if err := checker.Check(); err != nil {
				return nil, fmt.Errorf("cannot mount at %s: %w", at, err)
			}
		}
		seen[clean] = at
		list = append(list, mount{clean, fsys})
	}
	slices.SortFunc(list, func(a, b mount) int { return strings.Compare(a.path, b.path) })
	return list, nil
}

// reserved are places the guest cannot do without.
var reserved = []string{"/proc", "/sys", "/dev", "/run/gondolin"}

func mountPath(at string) (string, error) {
	if !path.IsAbs(at) || strings.ContainsAny(at, "\x00\n") {
		return "", fmt.Errorf("cannot mount at %q: give an absolute path in the guest", at)
	}
	clean := path.Clean(at)
	if clean == "/" {
		return RootMount, nil
	}
	for _, r := range reserved {
		if clean == r || strings.HasPrefix(clean, r+"/") || strings.HasPrefix(r, clean+"/") {
			return "", fmt.Errorf("cannot mount at %s: the guest needs %s for itself", at, r)
		}
	}
	return clean, nil
}

// environ returns the base environment: the image's, the secrets' placeholders,
// and the config's, the last of a name winning.
func (c Config) environ(image []string, placeholders map[string]string) ([][]byte, error) {
	var env [][]byte
	add := func(kv string) error {
		if strings.ContainsRune(kv, 0) {
			return errors.New("cannot use an environment variable with a NUL byte")
		}
		env = append(env, []byte(kv))
		return nil
	}
	var errs []error
	for _, kv := range image {
		errs = append(errs, add(kv))
	}
	for _, vars := range []map[string]string{placeholders, c.Env} {
		for _, name := range slices.Sorted(maps.Keys(vars)) {
			errs = append(errs, add(name+"="+vars[name]))
		}
	}
	return env, errors.Join(errs...)
}
