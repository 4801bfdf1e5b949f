package qemu

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"gondolin/internal/image"
	"gondolin/internal/machine"
	"gondolin/internal/machine/accel"
	"gondolin/internal/paths"
	"gondolin/internal/testenv"
)

// bootable describes a machine with the default image's kernel and modules, and
// with testdata/guest as its init.
func bootable(t testing.TB) Machine {
	t.Helper()
	binaryPath := testenv.NeedsQEMU(t)
	var img *image.Image
	testenv.NeedsImage(t, func() error {
		dirs, err := paths.FromEnv(os.Getenv, runtime.GOOS)
		if err != nil {
			return err
		}
		store, err := image.Open(dirs.Images())
		if err != nil {
			return err
		}
		img, err = store.Resolve(t.Context(), "debian:latest")
		return err
	})
	modules, err := os.ReadFile(img.Modules)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	initrd := filepath.Join(dir, "initrd")
	ours := cpio(t, map[string][]byte{
		"init":  buildGuest(t, dir),
		"order": []byte(strings.Join(img.ModuleOrder, "\n")),
	})
	if err := os.WriteFile(initrd, append(modules, ours...), 0o600); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	content := make([]byte, 1<<20)
	copy(content, "hello from the root disk")
	if err := os.WriteFile(root, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return Machine{
		Binary: binaryPath, Memory: 256 * mib, Kernel: img.Kernel, Initrd: initrd, Root: Disk{Path: root},
	}
}

func buildGuest(t testing.TB, dir string) []byte {
	t.Helper()
	out := filepath.Join(dir, "guest")
	cmd := exec.Command(testenv.NeedsTool(t, "go"), "build", "-ldflags=-s -w", "-o", out, "./testdata/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// cpio returns a "newc" archive (Documentation/driver-api/early-userspace/buffer-format.rst)
// of executable files and of what the kernel opens for init's standard streams.
func cpio(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	entry := func(name string, mode int, data []byte, major, minor int) {
		fmt.Fprintf(&b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
			b.Len(), mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
		b.Write(make([]byte, -b.Len()&3))
		b.Write(data)
		b.Write(make([]byte, -b.Len()&3))
	}
	entry("dev", 0o40755, nil, 0, 0)
	entry("dev/console", 0o20600, nil, 5, 1)
	for name, data := range files {
		entry(name, 0o100755, data, 0, 0)
	}
	entry("TRAILER!!!", 0, nil, 0, 0)
	return b.Bytes()
}

// guest talks to testdata/guest over the control port.
type guest struct {
	t testing.TB
	p *Process
	r *bufio.Reader
}

func bootGuest(t testing.TB, m Machine) guest {
	t.Helper()
	began := time.Now()
	p := start(t, m, Options{})
	g := guest{t, p, bufio.NewReader(p.Control())}
	// Written long before the guest opens the port: it must not get lost.
	if got := g.ask("echo early"); got != "early" {
		t.Fatalf("the guest said %q", got)
	}
	t.Logf("%s/%s: first answer %v after start", p.Machine().Type, p.Machine().Accel, time.Since(began).Round(time.Millisecond))
	return g
}

func (g guest) tell(command string) {
	g.t.Helper()
	_ = g.p.Control().SetDeadline(time.Now().Add(testDeadline))
	if _, err := io.WriteString(g.p.Control(), command+"\n"); err != nil {
		g.t.Fatal(err)
	}
}

func (g guest) ask(command string) string {
	g.t.Helper()
	g.tell(command)
	line, err := g.r.ReadString('\n')
	if err != nil {
		g.t.Fatalf("%s: %v; console:\n%s", command, err, machine.Sanitize(g.p.Console()))
	}
	return strings.TrimSpace(line)
}

// each machine type of this host's architecture, with emulation.
func bootTypes() []Type {
	if runtime.GOARCH == "arm64" {
		return []Type{Virt}
	}
	return []Type{MicroVM, Q35}
}

func TestBoot(t *testing.T) {
	testenv.CheckLeaks(t)
	m := bootable(t)
	for _, kind := range bootTypes() {
		for cpus := 1; cpus <= 2; cpus++ {
			t.Run(fmt.Sprintf("%s-%d", kind, cpus), func(t *testing.T) {
				m := m
				m.Type, m.CPUs, m.Cmdline = kind, cpus, []string{"gondolin.test=a,b"}
				checkGuest(t, bootGuest(t, m))
			})
		}
	}
}

func TestBootKVM(t *testing.T) {
	testenv.NeedsKVM(t)
	testenv.CheckLeaks(t)
	m := bootable(t)
	m.Accel = accel.KVM
	checkGuest(t, bootGuest(t, m))
}

func checkGuest(t *testing.T, g guest) {
	t.Helper()
	if got := g.ask("read /proc/cmdline"); !strings.Contains(got, "gondolin.test=a,b") && g.p.Machine().Cmdline != nil {
		t.Errorf("command line %s", got)
	}
	if got := g.ask("sum /dev/vda"); got != `"hello from the root disk" <nil>` {
		t.Errorf("root disk reads %s", got)
	}
	for file, want := range map[string]string{
		"/sys/block/vda/ro":                     `"1"`,
		"/sys/block/vda/serial":                 `"root"`,
		"/sys/class/net/eth0/address":           strconv.Quote(DefaultMAC),
		"/sys/devices/system/cpu/online":        `"` + map[int]string{1: "0", 2: "0-1"}[g.p.Machine().CPUs] + `"`,
		"/sys/class/misc/hw_random/rng_current": `"virtio_rng.0"`,
	} {
		if got := g.ask("read " + file); got != want {
			t.Errorf("%s is %s, want %s", file, got, want)
		}
	}
	if got := g.ask("write /dev/vda"); got == "<nil>" {
		t.Error("the guest can write its root disk")
	}
	checkFiles(t, g.p)
	checkFrames(t, g.p)
	checkClock(t, g)
}

// checkFiles sends bytes through the echo on the files port.
func checkFiles(t *testing.T, p *Process) {
	t.Helper()
	const size = 4 << 20
	conn := p.Files()
	_ = conn.SetDeadline(time.Now().Add(testDeadline))
	began := time.Now()
	go func() { _, _ = conn.Write(bytes.Repeat([]byte("0123456789abcdef"), size/16)) }()
	got := make([]byte, size)
	if _, err := io.ReadFull(conn, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, bytes.Repeat([]byte("0123456789abcdef"), size/16)) {
		t.Error("the files port alters bytes")
	}
	t.Logf("files port echoes %.1f MB/s", size/1e6/time.Since(began).Seconds())
}

// checkFrames sends frames, tiny and maximal, through the echo on eth0.
func checkFrames(t *testing.T, p *Process) {
	t.Helper()
	conn := p.Network()
	_ = conn.SetDeadline(time.Now().Add(testDeadline))
	for _, size := range []int{60, 1514, 1514, 61} {
		frame := make([]byte, size)
		copy(frame, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5})
		frame[size-1] = 0x5a
		if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(size)), frame...)); err != nil {
			t.Fatal(err)
		}
		for { // the guest's kernel has things of its own to say, such as IPv6's
			head := make([]byte, 4)
			if _, err := io.ReadFull(conn, head); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, min(binary.BigEndian.Uint32(head), 1<<16))
			if _, err := io.ReadFull(conn, got); err != nil {
				t.Fatal(err)
			}
			if len(got) < 14 || !bytes.Equal(got[12:14], frame[12:14]) {
				continue
			}
			if len(got) != size || !bytes.Equal(got[14:], frame[14:]) || !bytes.Equal(got[:6], frame[6:12]) {
				t.Errorf("frame of %d bytes came back as %x", size, got[:14])
			}
			break
		}
	}
}

// checkClock compares the speed of the guest's clock with the host's: under
// emulation the kernel believes the rate it was told.
func checkClock(t *testing.T, g guest) {
	t.Helper()
	uptime := func() (time.Time, float64) {
		text := strings.Trim(g.ask("read /proc/uptime"), `"`)
		seconds, err := strconv.ParseFloat(strings.Fields(text)[0], 64)
		if err != nil {
			t.Fatal(err)
		}
		return time.Now(), seconds
	}
	hostStart, guestStart := uptime()
	<-time.After(time.Second)
	hostEnd, guestEnd := uptime()
	rate := (guestEnd - guestStart) / hostEnd.Sub(hostStart).Seconds()
	if rate < 0.95 || rate > 1.05 { // uptime has steps of 10 ms, and a busy host delays answers
		t.Errorf("the guest's clock runs at %.3f of the host's speed", rate)
	}
}

func TestEnds(t *testing.T) {
	testenv.CheckLeaks(t)
	m := bootable(t)
	for command, want := range map[string]struct {
		cause machine.Cause
		text  string
	}{
		"poweroff": {machine.CauseGuest, "powered off"},
		"reboot":   {machine.CauseGuest, "rebooted"},
		"panic":    {machine.CausePanic, "Kernel panic - not syncing: sysrq triggered crash"},
	} {
		t.Run(command, func(t *testing.T) {
			g := bootGuest(t, m)
			g.ask("noise")
			g.tell(command)
			awaitDone(t, g.p)
			var exit *machine.ExitError
			if !errors.As(g.p.Err(), &exit) {
				t.Fatalf("ended with %v", g.p.Err())
			}
			if exit.Cause != want.cause || !strings.Contains(exit.Error(), want.text) {
				t.Errorf("%s: %v; want %s and %q", exit.Cause, exit, want.cause, want.text)
			}
			if !strings.Contains(exit.Console, "noise red\n") {
				t.Errorf("console is not clean: %q", exit.Console)
			}
		})
	}
}
