package accel

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// kvmGetAPIVersion is KVM_GET_API_VERSION, _IO(0xAE, 0x00) in linux/kvm.h; every
// kernel since 2.6.22 answers 12.
const (
	kvmGetAPIVersion = 0xae00
	kvmAPIVersion    = 12
)

// openDevice says whether an accelerator can be opened at all.
func openDevice(a Accel) error {
	if a != KVM {
		return fmt.Errorf("cannot use %s on Linux", a)
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cannot open KVM: %w", err)
	}
	defer f.Close()
	version, err := unix.IoctlRetInt(int(f.Fd()), kvmGetAPIVersion)
	if err != nil {
		return fmt.Errorf("cannot ask KVM for its version: %w", err)
	}
	if version != kvmAPIVersion {
		return fmt.Errorf("cannot use KVM: its version is %d, not %d", version, kvmAPIVersion)
	}
	return nil
}

// hostIdentity returns the kernel's release and an id of this boot; what cannot be
// found out is empty.
func hostIdentity() (release, boot string) {
	return firstLine("/proc/sys/kernel/osrelease"), firstLine("/proc/sys/kernel/random/boot_id")
}

// HostCPU names the host's processor and what it can do; two hosts for which it is
// the same can continue each other's virtual machines.
func HostCPU() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(raw), "\n\n")
	var name, features string
	for line := range strings.Lines(first) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "model name", "CPU part":
			name = strings.TrimSpace(value)
		case "flags", "Features":
			features = value
		}
	}
	return fmt.Sprintf("%s, features %.8x", name, sha256.Sum256([]byte(features)))
}

func firstLine(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}
