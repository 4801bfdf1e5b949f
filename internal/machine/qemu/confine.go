package qemu

import (
	"os"

	"gondolin/internal/machine/accel"
	"gondolin/internal/machine/jail"
)

// newJail makes the jail for m, which has its defaults.
func newJail(m Machine, opts Options) (*jail.Jail, error) {
	return jail.New(jailConfig(m, opts))
}

// jailConfig says what QEMU needs to run m. It writes to a file only where the
// guest's memory is being saved: a clone's is private, and disks are read-only.
func jailConfig(m Machine, opts Options) jail.Config {
	config := jail.Config{
		Program:   m.Binary,
		OpenFiles: baseFiles + filesPerCPU*m.CPUs,
		Threads:   baseThreads + m.CPUs,
		Memory:    m.Memory + overhead,
		CPUs:      m.CPUs,
		Frozen:    !m.RAM.Shared,
		Strict:    opts.RequireJail,
	}
	if m.Accel == accel.TCG {
		config.Memory += translations
	}
	if m.Accel == accel.KVM {
		config.Devices = []string{"/dev/kvm"}
	}
	if m.RAM.Shared {
		config.FileSize = max(m.Memory, maxStateBytes)
	}
	return config
}

// letOpen has the jail let QEMU open f if it opens that file by itself, through
// /proc/self/fd; the others it uses as they are.
func letOpen(j *jail.Jail, field string, m Machine, f *os.File) (*os.File, error) {
	switch {
	case field == "Kernel" || field == "Initrd":
		return j.Open(f, jail.Read)
	case field == "RAM" && m.RAM.Shared:
		return j.Open(f, jail.Resize)
	case field == "RAM":
		return j.Open(f, jail.Write) // it opens private memory for writing, too
	}
	return f, nil
}

// Jail says which layers of the jail around QEMU are active.
func (p *Process) Jail() jail.Report { return p.jail.Report() }
