package qemu

import (
	"fmt"
	"strconv"
	"strings"

	"gondolin/internal/machine"
	"gondolin/internal/machine/accel"
)

// FDs are the descriptor numbers QEMU inherits. Kernel, Initrd and Root are zero
// where there is no such file or it goes by its path.
type FDs struct {
	Monitor int // QMP
	Console int // the guest's serial console
	Control int // the "ctl" port
	Files   int // the "fs" port
	Network int // Ethernet frames
	Kernel  int
	Initrd  int
	Root    int
	RAM     int
	// Incoming is the device state; QEMU is told of it over the monitor.
	Incoming int
}

// Args returns QEMU's arguments, without its name. It looks at nothing but its
// own arguments and at what platform it was built for.
func Args(m Machine, fds FDs) ([]string, error) {
	m = m.withDefaults()
	if err := m.validate(); err != nil {
		return nil, err
	}
	cmdline, err := kernelCmdline(m)
	if err != nil {
		return nil, err
	}
	a := &argList{device: "pci"}
	if m.Type == MicroVM {
		a.device = "device"
	}
	a.base(m, fds)
	a.boot(m, fds, cmdline)
	a.monitor(fds)
	a.ports(fds)
	a.network(m, fds)
	a.add("-object", "rng-builtin,id=rng", "-device", a.virtio("rng", "rng=rng"))
	if m.Root.Path != "" {
		a.root(m, fds)
	}
	return a.args, nil
}

// argList collects arguments. Values that are not made here pass through option
// or stand in an argument of their own, where commas mean nothing.
type argList struct {
	args   []string
	device string // the suffix of virtio devices: "pci", or "device" for virtio-mmio
}

func (a *argList) add(args ...string) { a.args = append(a.args, args...) }

// virtio returns a virtio device with its properties. The legacy interface of
// virtio 0.9 is off everywhere: two implementations are twice as much to attack.
func (a *argList) virtio(kind string, props ...string) string {
	dev := []string{"virtio-" + kind + "-" + a.device}
	if a.device == "pci" {
		dev = append(dev, "disable-legacy=on")
	}
	return strings.Join(append(dev, props...), ",")
}

func (a *argList) base(m Machine, fds FDs) {
	a.add("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none")
	if m.HostOS == "linux" { // seccomp; QEMU refuses the option elsewhere
		a.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
	}
	a.add("-machine", machineOption(m)+",memory-backend=ram", "-accel", string(m.Accel), "-cpu", m.CPUModel)
	a.add("-smp", fmt.Sprintf("cpus=%d,sockets=1,cores=%d,threads=1", m.CPUs, m.CPUs))
	a.memory(m, fds)
	if m.Type == MicroVM {
		a.add("-global", "virtio-mmio.force-legacy=false")
	}
}

// memory adds the guest's memory, under the same name wherever it lies, so that it
// can be moved. A file is opened by QEMU itself, for writing even where it maps it
// privately.
func (a *argList) memory(m Machine, fds FDs) {
	a.add("-m", fmt.Sprintf("size=%dM", m.Memory/mib))
	if m.RAM.Path == "" {
		a.add("-object", fmt.Sprintf("memory-backend-ram,id=ram,size=%dM,merge=off,dump=off", m.Memory/mib))
		return
	}
	share := "off"
	if m.RAM.Shared {
		share = "on"
	}
	a.add("-object", fmt.Sprintf("memory-backend-file,id=ram,size=%dM,share=%s,merge=off,dump=off,mem-path=%s",
		m.Memory/mib, share, option(fdPath(fds.RAM, m.RAM.Path))))
}

// machineOption returns the machine type and its properties. For all of them:
// guest pages are never merged with other guests' (timing tells what a neighbour
// holds) and never part of a core dump.
func machineOption(m Machine) string {
	const private = ",mem-merge=off,dump-guest-core=off"
	switch m.Type {
	case MicroVM:
		// Devices are found through ACPI. No timer chip and no second interrupt
		// controller: the rate of the time-stamp counter is known, from the command line
		// or from KVM's clock. The RTC stays: without one the kernel looks for it for 2 s.
		return "microvm,acpi=on,rtc=on,isa-serial=on,pit=off,pic=off,x-option-roms=off,auto-kernel-cmdline=off" + private
	case Q35:
		return "q35,usb=off,vmport=off,smm=off,sata=off,smbus=off,i8042=off,graphics=off" + private
	default:
		return "virt,gic-version=" + gicVersion(m.Accel) + private
	}
}

// gicVersion returns the interrupt controller of arm64: KVM has the host's, HVF
// in the QEMU releases in use can do version 2 only.
func gicVersion(a accel.Accel) string {
	switch a {
	case accel.KVM:
		return "host"
	case accel.HVF:
		return "2"
	default:
		return "3"
	}
}

func (a *argList) boot(m Machine, fds FDs, cmdline string) {
	if m.Receives {
		a.add("-incoming", "defer", "-S")
		return
	}
	if !m.boots() {
		a.add("-incoming", "defer")
		return
	}
	a.add("-kernel", fdPath(fds.Kernel, m.Kernel))
	if m.Initrd != "" {
		a.add("-initrd", fdPath(fds.Initrd, m.Initrd))
	}
	a.add("-append", cmdline)
}

// fdPath returns a path that opens the file anew with its own offset, which
// /proc does and macOS's /dev/fd does not: QEMU opens a kernel several times.
func fdPath(fd int, path string) string {
	if fd == 0 {
		return path
	}
	return "/proc/self/fd/" + strconv.Itoa(fd)
}

func (a *argList) monitor(fds FDs) {
	a.add("-chardev", socket("qmp", fds.Monitor), "-mon", "chardev=qmp,mode=control")
	a.add("-chardev", socket("console", fds.Console), "-serial", "chardev:console")
}

func (a *argList) ports(fds FDs) {
	// Port 0 is the console port of the bus, which stays empty; 1 and 2 are ours.
	a.add("-device", a.virtio("serial", "id=ports", "max_ports=3"))
	for i, p := range []struct {
		name string
		fd   int
	}{{machine.ControlPort, fds.Control}, {machine.FilesPort, fds.Files}} {
		a.add("-chardev", socket(p.name, p.fd))
		a.add("-device", fmt.Sprintf("virtserialport,bus=ports.0,nr=%d,chardev=%s,name=%s", i+1, p.name, p.name))
	}
}

func (a *argList) network(m Machine, fds FDs) {
	a.add("-netdev", fmt.Sprintf("stream,id=net,server=off,addr.type=fd,addr.str=%d", fds.Network))
	props := []string{"netdev=net", "mac=" + strings.ToLower(m.MAC)}
	if a.device == "pci" {
		props = append(props, "romfile=") // no network boot
	}
	a.add("-device", a.virtio("net", props...))
}

// root adds the root disk by descriptor. QEMU takes no lock on it: it is
// immutable, and clones share it.
func (a *argList) root(m Machine, fds FDs) {
	file := "file.filename=" + option(m.Root.Path)
	if fds.Root != 0 {
		a.add("-add-fd", fmt.Sprintf("fd=%d,set=1,opaque=root", fds.Root))
		file = "file.filename=/dev/fdset/1"
	}
	a.add("-blockdev", "driver=raw,node-name=root,read-only=on,file.driver=file,"+file+
		",file.read-only=on,file.locking=off,file.aio=threads")
	a.add("-device", a.virtio("blk", "drive=root", "serial=root"))
}

func socket(id string, fd int) string {
	return fmt.Sprintf("socket,id=%s,fd=%d", id, fd)
}

// option escapes a value for a comma-separated option (qemu(1): "use double comma").
func option(value string) string {
	return strings.ReplaceAll(value, ",", ",,")
}
