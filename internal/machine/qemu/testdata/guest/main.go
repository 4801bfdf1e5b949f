// Command guest is the init process of the virtual machines this package's
// tests boot. It loads the modules named in /order, reports what it
// finds on the console and then serves the two serial ports: "ctl" takes one
// command a line, "fs" echoes bytes, and eth0 echoes frames of the
// local-experimental ethertype 0x88b5 (IEEE 802, section 9.2.4).
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

func main() {
	uptime := mountKernel()
	say("init uptime %s", uptime)
	if err := loadModules(); err != nil {
		say("modules: %v", err)
	}
	say("modules uptime %s", read("/proc/uptime"))
	say("cmdline %s", read("/proc/cmdline"))
	say("cpus %d machine %s", runtime.NumCPU(), runtime.GOARCH)
	describe()
	go echoPort("fs")
	go echoFrames()
	serve()
	say("ctl ended")
	powerOff()
}

func say(format string, args ...any) {
	fmt.Printf("guest: "+format+"\n", args...)
}

func read(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}

func mountKernel() string {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		_ = os.MkdirAll(m[1], 0o755)
		_ = syscall.Mount(m[0], m[1], m[0], 0, "")
	}
	return read("/proc/uptime")
}

func loadModules() error {
	for name := range strings.FieldsSeq(read("/order")) {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		params := []byte{0}
		_, _, errno := syscall.Syscall(sysFinitModule, f.Fd(), uintptr(unsafe.Pointer(&params[0])), 0)
		f.Close()
		if errno != 0 && errno != syscall.EEXIST {
			return fmt.Errorf("%s: %w", name, errno)
		}
	}
	return nil
}

func describe() {
	ports, _ := filepath.Glob("/sys/class/virtio-ports/*")
	for _, p := range ports {
		say("port %s = %q dev %s", filepath.Base(p), read(p+"/name"), read(p+"/dev"))
	}
	nets, _ := filepath.Glob("/sys/class/net/*")
	for _, n := range nets {
		say("net %s %s", filepath.Base(n), read(n+"/address"))
	}
	disks, _ := filepath.Glob("/sys/block/*")
	for _, d := range disks {
		say("disk %s size %s ro %s serial %q", filepath.Base(d), read(d+"/size"), read(d+"/ro"), read(d+"/serial"))
	}
	say("rng %s", read("/sys/class/misc/hw_random/rng_current"))
	say("clock %s of %s", read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
		read("/sys/devices/system/clocksource/clocksource0/available_clocksource"))
	log, _ := kernelLog()
	for _, l := range log {
		say("kmsg %s", l)
	}
}

func openPort(name string) (*os.File, error) {
	ports, _ := filepath.Glob("/sys/class/virtio-ports/*")
	for _, p := range ports {
		if read(p+"/name") == name {
			return os.OpenFile("/dev/"+filepath.Base(p), os.O_RDWR, 0)
		}
	}
	return nil, fmt.Errorf("no port %q", name)
}

func echoPort(name string) {
	f, err := openPort(name)
	if err != nil {
		say("%v", err)
		return
	}
	n, err := io.Copy(struct{ io.Writer }{f}, struct{ io.Reader }{f})
	say("port %s ended after %d: %v", name, n, err)
}

func serve() {
	f, err := openPort("ctl")
	if err != nil {
		say("%v", err)
		return
	}
	say("serving uptime %s", read("/proc/uptime"))
	in := bufio.NewScanner(f)
	for in.Scan() {
		verb, arg, _ := strings.Cut(in.Text(), " ")
		switch verb {
		case "echo":
			fmt.Fprintln(f, arg)
		case "read":
			fmt.Fprintf(f, "%q\n", read(arg))
		case "sum": // reads the disk as a whole and answers its first bytes
			b := make([]byte, 64)
			d, err := os.Open(arg)
			if err == nil {
				_, err = io.ReadFull(d, b)
			}
			fmt.Fprintf(f, "%q %v\n", bytes.TrimRight(b, "\x00"), err)
		case "write":
			fmt.Fprintf(f, "%v\n", os.WriteFile(arg, []byte("guest was here"), 0o600))
		case "poweroff":
			powerOff()
		case "reboot":
			_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
		case "panic":
			_ = os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0o200)
		case "noise":
			say("noise \x1b[31mred\x1b[0m\x07")
			fmt.Fprintln(f, "done")
		}
	}
}

func kernelLog() ([]string, error) {
	buf := make([]byte, 1<<18)
	n, err := syscall.Klogctl(3, buf)
	if err != nil {
		return nil, err
	}
	var keep []string
	for l := range strings.SplitSeq(string(buf[:n]), "\n") {
		for _, w := range []string{"crng", "tsc", "clocksource", "Run /init", "Freeing initrd", "Unpacking", "virtio", "smpboot", "calibrat"} {
			if strings.Contains(l, w) {
				keep = append(keep, l)
				break
			}
		}
	}
	return keep, nil
}

func powerOff() {
	syscall.Sync()
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

// echoFrames swaps the addresses of every frame of ethertype 0x88b5 and sends it back.
func echoFrames() {
	const ethertype = 0x88b5
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW, 0xb588)
	if err != nil {
		say("packet socket: %v", err)
		return
	}
	index, err := linkUp(fd, "eth0")
	if err != nil {
		say("link: %v", err)
		return
	}
	addr := &syscall.SockaddrLinklayer{Protocol: 0xb588, Ifindex: index}
	if err := syscall.Bind(fd, addr); err != nil {
		say("bind: %v", err)
		return
	}
	say("eth0 up, echoing %#x", ethertype)
	buf := make([]byte, 65536)
	for {
		n, from, err := syscall.Recvfrom(fd, buf, 0)
		if err != nil {
			say("recv: %v", err)
			return
		}
		if l, ok := from.(*syscall.SockaddrLinklayer); ok && l.Pkttype == syscall.PACKET_OUTGOING || n < 14 {
			continue
		}
		var mac [6]byte
		copy(mac[:], buf[:6])
		copy(buf[:6], buf[6:12])
		copy(buf[6:12], mac[:])
		if err := syscall.Sendto(fd, buf[:n], 0, addr); err != nil {
			say("send: %v", err)
		}
	}
}

// linkUp sets IFF_UP (net/if.h) and returns the interface's index.
func linkUp(fd int, name string) (int, error) {
	const upFlag = 0x1
	var req struct {
		name  [16]byte
		value int32
		_     [20]byte
	}
	copy(req.name[:15], name)
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCGIFINDEX, uintptr(unsafe.Pointer(&req))); e != 0 {
		return 0, e
	}
	index := int(req.value)
	req.value = upFlag
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&req))); e != 0 {
		return 0, e
	}
	return index, nil
}
