package accel

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// openDevice says whether an accelerator can be used at all.
func openDevice(a Accel) error {
	if a != HVF {
		return fmt.Errorf("cannot use %s on macOS", a)
	}
	supported, err := unix.SysctlUint32("kern.hv_support")
	if err != nil {
		return fmt.Errorf("cannot ask whether the Hypervisor framework works: %w", err)
	}
	if supported == 0 {
		return fmt.Errorf("cannot use the Hypervisor framework: the system says it is not supported here")
	}
	return nil
}

// HostCPU names the host's processor; two hosts for which it is the same can continue
// each other's virtual machines.
func HostCPU() string {
	name, _ := unix.Sysctl("machdep.cpu.brand_string")
	return name
}

// hostIdentity returns the kernel's release and an id of this boot; what cannot be
// found out is empty.
func hostIdentity() (release, boot string) {
	release, _ = unix.Sysctl("kern.osrelease")
	if tv, err := unix.SysctlTimeval("kern.boottime"); err == nil {
		boot = strconv.FormatInt(tv.Sec, 10)
	}
	return release, boot
}
