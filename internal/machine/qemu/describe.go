package qemu

import (
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strings"

	"gondolin/internal/machine/accel"
)

// Arch is a guest architecture, named as in runtime.GOARCH.
type Arch string

// The architectures.
const (
	AMD64 Arch = "amd64"
	ARM64 Arch = "arm64"
)

// Type is a QEMU machine type.
type Type string

// The machine types.
const (
	MicroVM Type = "microvm" // amd64: virtio-mmio only, no PCI; boots fastest
	Q35     Type = "q35"     // amd64: a PC, the fallback
	Virt    Type = "virt"    // arm64
)

// DefaultMAC is the guest's hardware address if a Machine names none. It is
// locally administered (IEEE 802, 8.4); each machine is alone on its network.
const DefaultMAC = "02:00:00:00:00:02"

// Machine describes a virtual machine. It is plain data.
type Machine struct {
	// Binary is the absolute path of QEMU; if empty, Start looks for it in PATH.
	Binary string
	// HostOS is the system QEMU runs on, as runtime.GOOS; if empty, this one.
	HostOS string
	// Arch is the guest's architecture; if empty, the host's.
	Arch Arch
	// Accel runs the guest's instructions; if empty, TCG.
	Accel accel.Accel
	// Type is the machine type; if empty, MicroVM for amd64 and Virt for arm64. An
	// amd64 guest under TCG whose TSCKHz is unknown gets Q35, which has a timer to
	// measure it against.
	Type Type
	// CPUModel is QEMU's name of the processor; if empty, "host", or "max" for TCG.
	CPUModel string
	// CPUs is the number of processors; if zero, 1.
	CPUs int
	// Memory is the guest's RAM in bytes, a multiple of 1 MiB; required.
	Memory int64

	// RAM is the file that holds the guest's memory; if its path is empty, no file does.
	RAM RAM
	// Incoming is the path of a device state saved by Process.Save. The machine then
	// starts from it, and from RAM, instead of booting: it stands still until
	// Process.Restore. Everything else but MAC and TSCKHz must be as it was then;
	// Kernel, Initrd and Cmdline are not used.
	Incoming string
	// Receives has the machine neither boot nor ever run: it takes over another's
	// memory and state, see Process.Copy. RAM is then a shared file.
	Receives bool

	// Kernel and Initrd are absolute paths; Kernel is required.
	Kernel string
	Initrd string
	// Cmdline is added to the kernel command line, one parameter each.
	Cmdline []string

	// Root is the root disk, /dev/vda in the guest with serial "root", always
	// read-only. An empty path means no disk.
	Root Disk

	// MAC is the hardware address of eth0; if empty, DefaultMAC.
	MAC string

	// TSCKHz is the rate of the host's time-stamp counter in kHz. It matters to amd64
	// guests under TCG only, whose counter is the host's: with it the kernel need not
	// measure, which hangs about one boot in ten, and with a wrong one the guest's
	// clocks run at the wrong speed. If zero, Start measures it where it can.
	TSCKHz int
}

// RAM is guest memory in a file of the host, which grows to the memory's size
// but is stored only where the guest has written.
type RAM struct {
	Path string // absolute; the file exists
	// Shared has the guest's writes go to the file. Otherwise the guest begins with
	// what the file holds and its writes are its own; others may do the same at once.
	Shared bool
}

// Disk is a disk image on the host.
type Disk struct {
	Path   string // absolute
	Format Format // if empty, Raw
}

// Format is how a disk image is laid out.
type Format string

// The formats. A format is never guessed: a raw disk whose content says that it
// is another format would name further host files to open.
const (
	Raw Format = "raw"
)

// withDefaults returns m with every empty field that has a default filled in.
func (m Machine) withDefaults() Machine {
	if m.HostOS == "" {
		m.HostOS = runtime.GOOS
	}
	if m.Arch == "" {
		m.Arch = Arch(runtime.GOARCH)
	}
	if m.Accel == "" {
		m.Accel = accel.TCG
	}
	if m.Type == "" {
		m.Type = m.defaultType()
	}
	if m.CPUModel == "" {
		m.CPUModel = "host"
		if m.Accel == accel.TCG {
			m.CPUModel = "max"
		}
	}
	if m.CPUs == 0 {
		m.CPUs = 1
	}
	if m.Root.Path != "" && m.Root.Format == "" {
		m.Root.Format = Raw
	}
	if m.MAC == "" {
		m.MAC = DefaultMAC
	}
	return m
}

func (m Machine) defaultType() Type {
	switch {
	case m.Arch == ARM64:
		return Virt
	case m.Accel == accel.TCG && m.TSCKHz == 0:
		return Q35
	}
	return MicroVM
}

// boots says whether the machine begins with a kernel.
func (m Machine) boots() bool { return m.Incoming == "" && !m.Receives }

// FieldError says which field of a Machine cannot be used.
type FieldError struct {
	Field  string // as in Machine, such as "Memory"
	Reason string
}

// Error names the field and the reason.
func (e *FieldError) Error() string {
	return fmt.Sprintf("cannot use machine: %s %s", e.Field, e.Reason)
}

func badField(field, format string, args ...any) error {
	return &FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// validate checks a Machine that has its defaults.
func (m Machine) validate() error {
	for _, check := range []func(Machine) error{
		checkPlatform, checkType, checkSize, checkPaths, checkNames, checkTSC,
	} {
		if err := check(m); err != nil {
			return err
		}
	}
	return nil
}

func checkPlatform(m Machine) error {
	if m.HostOS != "linux" && m.HostOS != "darwin" {
		return badField("HostOS", "is %q, not linux or darwin", m.HostOS)
	}
	if m.Arch != AMD64 && m.Arch != ARM64 {
		return badField("Arch", "is %q, not amd64 or arm64", m.Arch)
	}
	if _, err := accel.Parse(string(m.Accel)); err != nil {
		return badField("Accel", "is %q, not kvm, hvf or tcg", m.Accel)
	}
	if m.Accel == accel.KVM && m.HostOS != "linux" || m.Accel == accel.HVF && m.HostOS != "darwin" {
		return badField("Accel", "is %s, which %s does not have", m.Accel, m.HostOS)
	}
	return nil
}

func checkType(m Machine) error {
	switch {
	case m.Arch == AMD64 && (m.Type == MicroVM || m.Type == Q35):
	case m.Arch == ARM64 && m.Type == Virt:
	default:
		return badField("Type", "is %q, which %s does not have", m.Type, m.Arch)
	}
	if m.Type == MicroVM && m.Accel == accel.TCG && m.TSCKHz == 0 {
		return badField("TSCKHz", "is 0, and a microvm under tcg has no timer to measure it against")
	}
	return nil
}

func checkSize(m Machine) error {
	switch {
	case m.Memory < minMemory:
		return badField("Memory", "is %d bytes, less than %d MiB", m.Memory, minMemory/mib)
	case m.Memory >= maxMemory:
		return badField("Memory", "is %d bytes, not less than 1 TiB", m.Memory)
	case m.Memory%mib != 0:
		return badField("Memory", "is %d bytes, not a multiple of 1 MiB", m.Memory)
	case m.CPUs < 1 || m.CPUs > maxCPUs:
		return badField("CPUs", "is %d, not 1 to %d", m.CPUs, maxCPUs)
	case m.Accel == accel.HVF && m.Arch == ARM64 && m.CPUs > maxCPUsGICv2:
		return badField("CPUs", "is %d, and hvf on arm64 carries %d", m.CPUs, maxCPUsGICv2)
	}
	return nil
}

func checkPaths(m Machine) error {
	if m.Kernel == "" && m.boots() {
		return badField("Kernel", "is empty")
	}
	if m.Receives && (m.Incoming != "" || !m.RAM.Shared) {
		return badField("Receives", "is set, and so is Incoming, or RAM is not a shared file")
	}
	if m.Incoming != "" && (m.RAM.Path == "" || m.RAM.Shared) {
		return badField("Incoming", "is set, and RAM is not a private file")
	}
	for _, p := range []struct{ field, path string }{
		{"Binary", m.Binary},
		{"Kernel", m.Kernel},
		{"Initrd", m.Initrd},
		{"Root.Path", m.Root.Path},
		{"RAM.Path", m.RAM.Path},
		{"Incoming", m.Incoming},
	} {
		switch {
		case p.path == "":
		case len(p.path) > maxPath:
			return badField(p.field, "is longer than %d bytes", maxPath)
		case hasControl(p.path):
			return badField(p.field, "is %q, which has control characters", p.path)
		case !filepath.IsAbs(p.path):
			return badField(p.field, "is %q, which is not absolute", p.path)
		}
	}
	if m.Root.Path != "" && m.Root.Format != Raw {
		return badField("Root.Format", "is %q, not raw", m.Root.Format)
	}
	return nil
}

// checkNames checks what ends up inside comma-separated options.
func checkNames(m Machine) error {
	if !isPlain(m.CPUModel, "-_.+=,") {
		return badField("CPUModel", "is %q; letters, digits and -_.+=, are allowed", m.CPUModel)
	}
	mac, err := net.ParseMAC(m.MAC)
	if err != nil || len(mac) != 6 || strings.Count(m.MAC, ":") != 5 {
		return badField("MAC", "is %q, not six colon-separated octets", m.MAC)
	}
	if mac[0]&1 != 0 {
		return badField("MAC", "is %s, a multicast address", m.MAC)
	}
	return nil
}

func checkTSC(m Machine) error {
	if m.TSCKHz < 0 || m.TSCKHz >= maxTSCKHz {
		return badField("TSCKHz", "is %d, not 0 to %d", m.TSCKHz, maxTSCKHz-1)
	}
	return nil
}

// isPlain says whether s is made of ASCII letters, digits and the bytes in more.
func isPlain(s, more string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte(more, c) < 0:
			return false
		}
	}
	return s != ""
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}
