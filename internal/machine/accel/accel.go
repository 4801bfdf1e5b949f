// Package accel picks the accelerator a virtual machine runs on by proof, not by
// presence. A /dev/kvm that opens proves nothing: on nested and paravirtual hosts
// QEMU may abort with it, or the kernel never comes up. So the hardware
// accelerator is tried once with a real boot and a deadline, and the verdict is
// remembered for this host, kernel, QEMU and image. When it fails, emulation is
// used and one line says so.
package accel

import (
	"fmt"
	"runtime"
)

// Accel is a way to run a guest's instructions, named as QEMU names it.
type Accel string

// The accelerators.
const (
	KVM Accel = "kvm" // Linux hosts, guests of the host's architecture
	HVF Accel = "hvf" // macOS hosts, guests of the host's architecture
	TCG Accel = "tcg" // emulation: works everywhere, several times slower
)

// Parse returns the accelerator called name, as a flag or variable gives it.
func Parse(name string) (Accel, error) {
	switch a := Accel(name); a {
	case KVM, HVF, TCG:
		return a, nil
	}
	return "", fmt.Errorf("cannot use accelerator %q: it is one of kvm, hvf and tcg", name)
}

// Platform says what runs on what. Empty fields stand for this host, and a guest like it.
type Platform struct {
	HostOS    string // as runtime.GOOS
	HostArch  string // as runtime.GOARCH
	GuestArch string // as runtime.GOARCH
}

func (p Platform) withDefaults() Platform {
	if p.HostOS == "" {
		p.HostOS = runtime.GOOS
	}
	if p.HostArch == "" {
		p.HostArch = runtime.GOARCH
	}
	if p.GuestArch == "" {
		p.GuestArch = p.HostArch
	}
	return p
}

// Candidates returns the accelerators that may work on a platform, best first.
// The last one is always TCG.
func Candidates(p Platform) []Accel {
	p = p.withDefaults()
	switch {
	case p.HostArch != p.GuestArch:
		return []Accel{TCG}
	case p.HostOS == "linux":
		return []Accel{KVM, TCG}
	case p.HostOS == "darwin":
		return []Accel{HVF, TCG}
	}
	return []Accel{TCG}
}
