package gondolin

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"gondolin/internal/egress"
	"gondolin/internal/machine/accel"
	"gondolin/internal/machine/qemu"
	"gondolin/internal/wire"
	"gondolin/policy"
	"gondolin/vfs"
)

// Difference is a set of what a restored VM may have otherwise than the VM that was
// saved. What is not in it has to be the same.
type Difference uint

// The differences that can be accepted. A network of other rules lets what runs in the
// VM reach what it could not, or not reach what it is using. A secret that is missing leaves
// its placeholder without meaning. A mount that is missing, or another kind of file system,
// makes files that are open fail with ESTALE.
const (
	OtherNetwork Difference = 1 << iota
	OtherSecrets
	OtherMounts
)

// description says what a checkpoint is of and what it expects. It holds no secret.
type description struct {
	Image       string `json:"image"` // as it was named
	ImageDigest string `json:"image_digest"`
	Agent       string `json:"agent"` // names the boot archive, which is of the modules and the agent
	Protocol    int    `json:"protocol"`

	QEMU    string     `json:"qemu"` // its version, build included
	Arch    string     `json:"arch"`
	Accel   string     `json:"accelerator"`
	Machine string     `json:"machine"`
	CPU     string     `json:"cpu"`      // QEMU's name of the model
	HostCPU string     `json:"host_cpu"` // of the host, where the guest's is that
	TSCKHz  int        `json:"tsc_khz"`  // rate of the host's counter, where the guest's is that
	CPUs    int        `json:"cpus"`
	Memory  int64      `json:"memory"` // bytes
	Disk    savedDisks `json:"disk"`

	Hostname string            `json:"hostname"`
	Network  string            `json:"network"`           // digest of the policy
	Rules    []string          `json:"rules,omitempty"`   // for people
	Secrets  map[string]string `json:"secrets,omitempty"` // names, and where each may go
	Mounts   []savedMount      `json:"mounts,omitempty"`
	Continue *egress.Continue  `json:"continue"`
}

// savedDisks says how the guest's disk was made.
type savedDisks struct {
	Root string `json:"root"` // "memory": the guest's writes are in its memory
}

// savedMount is one mount, by its path in the guest.
type savedMount struct {
	Path string `json:"path"`
	Kind string `json:"kind"`
}

func kindOf(fsys vfs.FS) string { return strings.TrimLeft(fmt.Sprintf("%T", fsys), "*") }

// describe describes a VM of this plan's parts, but for what changes while it runs.
func describe(config Config, imageDigest string, m qemu.Machine, mounts []mount) (*description, error) {
	d := &description{
		Image: config.Image, ImageDigest: imageDigest, Agent: filepath.Base(m.Initrd), Protocol: wire.Version,
		Arch: string(m.Arch), Accel: string(m.Accel), Machine: string(m.Type), CPU: m.CPUModel,
		TSCKHz: m.TSCKHz, CPUs: m.CPUs, Memory: m.Memory, Disk: savedDisks{Root: "memory"},
		Hostname: config.Hostname,
	}
	if m.Accel != accel.TCG {
		d.HostCPU = accel.HostCPU()
	}
	for _, m := range mounts {
		d.Mounts = append(d.Mounts, savedMount{m.path, kindOf(m.fs)})
	}
	return d, d.describeNetwork(config.Network)
}

func (d *description) describeNetwork(n policy.Network) error {
	for _, r := range slices.Concat(n.Rules, n.Allow) {
		d.Rules = append(d.Rules, r.String())
	}
	d.Secrets = make(map[string]string, len(n.Secrets))
	for name, s := range n.Secrets {
		d.Secrets[name] = strings.Join(s.Hosts, ",")
	}
	h := sha256.New()
	if err := writeNetwork(h, n); err != nil {
		return fmt.Errorf("cannot describe the network policy: %w", err)
	}
	d.Network = hex.EncodeToString(h.Sum(nil))
	return nil
}

// writeNetwork writes all of n but its secrets. Conditions go by their text, since what
// is in them is their own.
func writeNetwork(w io.Writer, n policy.Network) error {
	var conditions []string
	plain := func(rules []policy.Rule) []policy.Rule {
		rules = slices.Clone(rules)
		for i := range rules {
			text := ""
			if rules[i].When != nil {
				text = rules[i].When.String()
			}
			conditions, rules[i].When = append(conditions, text), nil
		}
		return rules
	}
	within := n.Within
	n.Rules, n.Allow, n.Secrets, n.Within = plain(n.Rules), plain(n.Allow), nil, nil
	if err := json.NewEncoder(w).Encode(struct {
		Network    policy.Network
		Conditions []string
		Within     int
	}{n, conditions, len(within)}); err != nil {
		return err
	}
	for _, bounds := range within {
		if err := writeNetwork(w, bounds); err != nil {
			return err
		}
	}
	return nil
}

// check reports a description that no VM can have had.
func (d *description) check() error {
	if d.Continue == nil {
		return errors.New("its manifest is damaged")
	}
	return d.Continue.Check()
}

// tscTolerance is by how many parts in a thousand the rate of the host's counter may differ: more
// would make the guest's clocks drift by minutes a day.
const tscTolerance = 1

// machineDiffers says why a machine like the one that is planned cannot load what the
// described one has saved.
func (d *description) machineDiffers(now *description) error {
	var errs []error
	differs := func(what, was, is string) {
		if was != is {
			errs = append(errs, fmt.Errorf("it was made with %s %s, and this VM would have %s", what, orNone(was), orNone(is)))
		}
	}
	differs("image", d.ImageDigest, now.ImageDigest)
	differs("the guest agent", d.Agent, now.Agent)
	differs("control protocol", fmt.Sprint(d.Protocol), fmt.Sprint(now.Protocol))
	differs("architecture", d.Arch, now.Arch)
	differs("accelerator", d.Accel, now.Accel)
	differs("machine type", d.Machine, now.Machine)
	differs("CPU model", d.CPU, now.CPU)
	differs("host CPU", d.HostCPU, now.HostCPU)
	differs("memory of", mib(d.Memory), mib(now.Memory))
	differs("CPUs:", fmt.Sprint(d.CPUs), fmt.Sprint(now.CPUs))
	differs("root disk mode", d.Disk.Root, now.Disk.Root)
	if off := d.TSCKHz - now.TSCKHz; off*1000 > d.TSCKHz*tscTolerance || -off*1000 > d.TSCKHz*tscTolerance {
		differs("a host's counter of", fmt.Sprintf("%d kHz", d.TSCKHz), fmt.Sprintf("%d kHz", now.TSCKHz))
	}
	return errors.Join(errs...)
}

func mib(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// worldDiffers says in what the VM would have another world than it had, beyond
// what is accepted.
func (d *description) worldDiffers(now *description, accepted Difference) error {
	var errs []error
	if d.Network != now.Network && accepted&OtherNetwork == 0 {
		errs = append(errs, fmt.Errorf("it was made with the network rules [%s], and this VM would have [%s]; accept it with OtherNetwork",
			strings.Join(d.Rules, "; "), strings.Join(now.Rules, "; ")))
	}
	if !maps.Equal(d.Secrets, now.Secrets) && accepted&OtherSecrets == 0 {
		errs = append(errs, fmt.Errorf("it was made with the secrets [%s], and this VM would have [%s]; accept it with OtherSecrets",
			secretsText(d.Secrets), secretsText(now.Secrets)))
	}
	return errors.Join(append(errs, d.mountsDiffer(now, accepted))...)
}

func secretsText(m map[string]string) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		list = append(list, name+" for "+m[name])
	}
	return strings.Join(list, "; ")
}

func (d *description) mountsDiffer(now *description, accepted Difference) error {
	had := make(map[string]string)
	for _, m := range d.Mounts {
		had[m.Path] = m.Kind
	}
	var errs []error
	for _, m := range now.Mounts {
		kind, known := had[m.Path]
		delete(had, m.Path)
		switch {
		case !known:
			errs = append(errs, fmt.Errorf("it was made without a mount at %s, and a guest that runs gets no new ones", m.Path))
		case kind != m.Kind && accepted&OtherMounts == 0:
			errs = append(errs, fmt.Errorf("it was made with a %s at %s, and this VM would have a %s; accept it with OtherMounts", kind, m.Path, m.Kind))
		}
	}
	if accepted&OtherMounts == 0 {
		for _, path := range slices.Sorted(maps.Keys(had)) {
			errs = append(errs, fmt.Errorf("it was made with a mount at %s (%s), and this VM would have none; accept it with OtherMounts", path, had[path]))
		}
	}
	return errors.Join(errs...)
}

// orderMounts returns the file systems for the mounts the guest has, in its order. One
// that is not there any more is empty.
func (d *description) orderMounts(mounts []mount) []mount {
	list := make([]mount, len(d.Mounts))
	for i, saved := range d.Mounts {
		list[i] = mount{saved.Path, vfs.ReadOnly(vfs.Memory())}
		for _, m := range mounts {
			if m.path == saved.Path {
				list[i] = m
			}
		}
	}
	return list
}
