package cli

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"gondolin"
	"gondolin/policy"
	"gondolin/vfs"
)

// vmFlags are the flags of every command that starts a VM.
type vmFlags struct {
	image, memory, accel, upstreamCA string
	pcap                             string
	audit                            auditFlags
	resume                           string
	accept                           []string
	cold, timings                    bool
	cpus                             int
	timeout                          time.Duration
	allow, internal, secrets, hosts  []string
	policies                         []string
	hostMounts, memoryMounts, env    []string
	cwd                              string
	user, name                       string
}

func (f *vmFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.image, "image", "", "image to run: name[:tag], digest or directory (default "+gondolin.DefaultImage+")")
	flags.StringVar(&f.memory, "memory", "", "memory, such as 512M or 2G (default 1G)")
	flags.IntVar(&f.cpus, "cpus", 0, "number of processors (default 2)")
	flags.StringVar(&f.accel, "accel", "", "kvm, hvf or tcg (default: the best that works; also $GONDOLIN_ACCEL)")
	flags.BoolVar(&f.timings, "timings", false, "say on standard error what the phases of the start took")
	flags.StringVar(&f.resume, "resume", "", "continue the VM that was saved as `CHECKPOINT`, a name or a directory, instead of starting a new one")
	flags.StringSliceVar(&f.accept, "accept", nil,
		"with --resume, let the VM differ from the saved one in `WHAT`: network, secrets, mounts (repeatable)")
	flags.BoolVar(&f.cold, "cold", false, "boot instead of cloning a template")
	flags.DurationVar(&f.timeout, "timeout", 0, "stop the command after this long, such as 90s or 5m")
	flags.StringArrayVar(&f.allow, "allow-host", nil, "allow HTTP and HTTPS to hosts that match `PATTERN[:PORT]` (repeatable)")
	flags.StringArrayVar(&f.policies, "policy", nil, "allow what the policy `FILE` says; each further one, and --allow-host, narrows it (repeatable)")
	flags.StringArrayVar(&f.internal, "allow-internal", nil, "let allowed hosts resolve to internal addresses: `HOST`, address or CIDR range (repeatable)")
	flags.StringArrayVar(&f.secrets, "host-secret", nil,
		"give the guest a placeholder for a secret: `NAME@HOST[,HOST…][=VALUE]`; without VALUE it is read from the environment (repeatable)")
	flags.StringArrayVar(&f.hosts, "add-host", nil, "resolve a name on the host to a given address: `NAME:ADDRESS` (repeatable)")
	flags.StringVar(&f.upstreamCA, "upstream-ca", "", "`FILE` of PEM certificates to trust in servers, besides the system's")
	flags.StringArrayVar(&f.hostMounts, "mount-hostfs", nil, "mount a host directory: `HOST:GUEST[:ro]` (repeatable)")
	flags.StringArrayVar(&f.memoryMounts, "mount-memfs", nil, "mount an empty file system held in memory at `GUEST` (repeatable)")
	flags.StringArrayVar(&f.env, "env", nil, "set a variable for the command: `NAME=VALUE`, or NAME to pass it on (repeatable)")
	flags.StringVar(&f.cwd, "cwd", "", "working directory in the guest (default: the user's home)")
	flags.StringVar(&f.user, "user", "", "run as `USER[:GROUP]` of the guest (default root)")
	flags.StringVar(&f.name, "name", "", "name the VM for 'gondolin list' and commands that take a SESSION, besides its ID")
	flags.StringVar(&f.pcap, "pcap", "", "write the frames the guest sends and gets to `FILE`, as pcapng (1 GiB at most)")
	f.audit.register(flags)
}

// config turns the flags into a Config. The caller closes the files it writes,
// unless files is nil.
func (a *app) config(f *vmFlags) (config gondolin.Config, files io.Closer, err error) {
	config = gondolin.Config{
		Image: f.image, CPUs: f.cpus, Log: a.log, Cold: f.cold,
		Network: policy.Network{AllowInternal: f.internal},
		Host:    gondolin.Host{Accelerator: f.accel, QEMU: a.getenv("GONDOLIN_QEMU")},
	}
	if config.Host.Accelerator == "" {
		config.Host.Accelerator = a.getenv("GONDOLIN_ACCEL")
	}
	for _, pattern := range f.allow {
		config.Network.Allow = append(config.Network.Allow, policy.Rule{Host: pattern})
	}
	if f.timeout < 0 {
		return config, nil, usagef("--timeout: %v is negative", f.timeout)
	}
	if config.Memory, err = parseSize(f.memory); err != nil {
		return config, nil, usagef("--memory: %w", err)
	}
	if config.Network.Secrets, err = a.parseSecrets(f.secrets); err != nil {
		return config, nil, err
	}
	if config.Mounts, err = parseMounts(f.hostMounts, f.memoryMounts); err != nil {
		return config, nil, err
	}
	if config.Upstream, err = parseUpstream(f.hosts, f.upstreamCA); err != nil {
		return config, nil, err
	}
	if err := a.applyPolicy(f, &config); err != nil {
		return config, nil, err
	}
	files, err = f.openFiles(&config)
	return config, files, err
}

// parseSize reads a number of bytes with an optional binary suffix. Empty is 0.
func parseSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	shift := 0
	digits := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(s), "B"), "I")
	if i := strings.IndexAny("KMGT", digits[max(0, len(digits)-1):]); len(digits) > 0 && i >= 0 {
		shift, digits = 10*(i+1), digits[:len(digits)-1]
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > (1<<62)>>shift {
		return 0, fmt.Errorf("%q is not a size; give a number with K, M or G, such as 512M", s)
	}
	return n << shift, nil
}

// parseSecrets reads NAME@HOST[,HOST…][=VALUE]. No error names a value.
func (a *app) parseSecrets(list []string) (map[string]policy.Secret, error) {
	secrets := make(map[string]policy.Secret)
	for _, s := range list {
		spec, value, given := strings.Cut(s, "=")
		name, hosts, ok := strings.Cut(spec, "@")
		if !ok || name == "" || hosts == "" {
			return nil, usagef("--host-secret: %q is not NAME@HOST[,HOST…][=VALUE]", spec)
		}
		if _, twice := secrets[name]; twice {
			return nil, usagef("--host-secret: %s is given twice", name)
		}
		if !given {
			if value, given = a.lookup(name); !given || value == "" {
				return nil, usagef("--host-secret: %s has no value: set the variable %s, or add =VALUE", name, name)
			}
		}
		secrets[name] = policy.Secret{Hosts: strings.Split(hosts, ","), Value: value}
	}
	return secrets, nil
}

// parseMounts reads HOST:GUEST[:ro] and GUEST.
func parseMounts(host, memory []string) (map[string]vfs.FS, error) {
	mounts := make(map[string]vfs.FS)
	add := func(flag, guest string, fsys vfs.FS) error {
		if _, twice := mounts[guest]; twice {
			return usagef("%s: %s is mounted twice", flag, guest)
		}
		mounts[guest] = fsys
		return nil
	}
	for _, s := range host {
		spec, readOnly := strings.CutSuffix(s, ":ro")
		// A guest path has no colon; a host path may.
		i := strings.LastIndex(spec, ":")
		if i <= 0 || i == len(spec)-1 {
			return nil, usagef("--mount-hostfs: %q is not HOST:GUEST[:ro]", s)
		}
		dir, guest := spec[:i], spec[i+1:]
		fsys := vfs.Dir(dir)
		if readOnly {
			fsys = vfs.ReadOnly(fsys)
		}
		if err := add("--mount-hostfs", guest, fsys); err != nil {
			return nil, err
		}
	}
	for _, guest := range memory {
		if err := add("--mount-memfs", guest, vfs.Memory()); err != nil {
			return nil, err
		}
	}
	return mounts, nil
}

// parseEnv reads NAME=VALUE, or NAME for a variable of this process.
func (a *app) parseEnv(list []string) ([]string, error) {
	var env []string
	for _, s := range list {
		if strings.HasPrefix(s, "=") || s == "" {
			return nil, usagef("--env: %q is not NAME=VALUE", s)
		}
		if !strings.Contains(s, "=") {
			value, ok := a.lookup(s)
			if !ok {
				return nil, usagef("--env: %s is not set here; give %s=VALUE", s, s)
			}
			s += "=" + value
		}
		env = append(env, s)
	}
	return env, nil
}

func parseUpstream(hosts []string, caFile string) (up gondolin.Upstream, err error) {
	if len(hosts) > 0 {
		table := make(hostTable)
		for _, s := range hosts {
			name, address, ok := strings.Cut(s, ":")
			addr, perr := netip.ParseAddr(strings.Trim(address, "[]"))
			if !ok || name == "" || perr != nil {
				return up, usagef("--add-host: %q is not NAME:ADDRESS", s)
			}
			name = strings.ToLower(name)
			table[name] = append(table[name], addr)
		}
		up.Resolver = table
	}
	if caFile == "" {
		return up, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return up, fmt.Errorf("cannot read --upstream-ca: %w", err)
	}
	if up.RootCAs, err = x509.SystemCertPool(); err != nil {
		return up, fmt.Errorf("cannot read the system's certificates: %w", err)
	}
	if !up.RootCAs.AppendCertsFromPEM(pem) {
		return up, fmt.Errorf("cannot use --upstream-ca %s: it holds no PEM certificate", caFile)
	}
	return up, nil
}

// hostTable resolves the names it holds, and leaves the others to the system.
type hostTable map[string][]netip.Addr

// LookupNetIP implements gondolin.Resolver.
func (t hostTable) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if addrs := t[strings.ToLower(strings.TrimSuffix(host, "."))]; addrs != nil {
		return addrs, nil
	}
	return net.DefaultResolver.LookupNetIP(ctx, network, host)
}

// differences are what --accept takes.
var differences = map[string]gondolin.Difference{
	"network": gondolin.OtherNetwork, "secrets": gondolin.OtherSecrets, "mounts": gondolin.OtherMounts,
}

// start starts the VM the flags ask for, or restores it.
func (f *vmFlags) start(ctx context.Context, config gondolin.Config) (*gondolin.VM, error) {
	if f.resume == "" {
		if len(f.accept) > 0 {
			return nil, usagef("--accept: give --resume as well")
		}
		return gondolin.Start(ctx, config)
	}
	if f.cold {
		return nil, usagef("--cold: a VM that is resumed does not boot")
	}
	for _, what := range f.accept {
		d, known := differences[what]
		if !known {
			return nil, usagef("--accept: %q is not network, secrets or mounts", what)
		}
		config.Accept |= d
	}
	return gondolin.Restore(ctx, f.resume, config)
}
