package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"gondolin/internal/machine"
	"gondolin/internal/testenv"
)

const testDeadline = 30 * time.Second

// tinyKernel writes a kernel that prints "tiny\n" on its console and halts for
// good, so that a machine runs without needing anything from outside.
func tinyKernel(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kernel, tiny") // a name that needs care
	image := tinyImageAMD64()
	if runtime.GOARCH == "arm64" {
		image = tinyImageARM64()
	}
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// tinyImageAMD64 is a bzImage as the Linux x86 boot protocol wants it
// (Documentation/x86/boot.rst, "The Real-Mode Kernel Header"), all in its real-mode part.
func tinyImageAMD64() []byte {
	b := make([]byte, 64<<10)
	b[0x1f1] = 4                                     // setup_sects
	binary.LittleEndian.PutUint16(b[0x1fe:], 0xaa55) // boot_flag
	copy(b[0x202:], "HdrS")
	copy(b[0x200:], []byte{0xeb, 0x7e}) // jmp 0x280
	binary.LittleEndian.PutUint16(b[0x206:], 0x020c)
	b[0x211] = 1 // loadflags: LOADED_HIGH
	binary.LittleEndian.PutUint32(b[0x22c:], 0x7fffffff)
	code := []byte{0xfa, 0xba, 0xf8, 0x03} // cli; mov dx, 0x3f8
	for _, c := range []byte("tiny\n") {
		code = append(code, 0xb0, c, 0xee) // mov al, c; out dx, al
	}
	copy(b[0x280:], append(code, 0xf4, 0xeb, 0xfd)) // hlt; jmp back
	return b
}

// tinyImageARM64 prints through the virt machine's PL011 at 0x09000000.
func tinyImageARM64() []byte {
	code := []uint32{0xd2a12000} // movz x0, #0x900, lsl #16
	for _, c := range []byte("tiny\n") {
		code = append(code, 0x52800001|uint32(c)<<5, 0xb9000001) // mov w1, #c; str w1, [x0]
	}
	code = append(code, 0xd503207f, 0x17ffffff) // wfi; b back
	b := make([]byte, 64<<10)
	for i, word := range code {
		binary.LittleEndian.PutUint32(b[4*i:], word)
	}
	return b
}

func tinyMachine(t testing.TB) Machine {
	t.Helper()
	return Machine{Binary: testenv.NeedsQEMU(t), Memory: minMemory, Kernel: tinyKernel(t)}
}

func start(t testing.TB, m Machine, opts Options) *Process {
	t.Helper()
	p, err := Start(t.Context(), m, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func awaitDone(t testing.TB, p *Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(testDeadline):
		t.Fatalf("qemu is still there; console:\n%s", machine.Sanitize(p.Console()))
	}
}

// await polls until condition holds.
func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	tick, limit := time.NewTicker(2*time.Millisecond), time.After(testDeadline)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s did not happen", what)
		}
	}
}

func TestProcessRunsAndCloses(t *testing.T) {
	testenv.CheckLeaks(t)
	m := tinyMachine(t)
	for _, kind := range []Type{"", Q35} {
		if kind == Q35 && runtime.GOARCH != "amd64" {
			continue
		}
		t.Run("type "+string(kind), func(t *testing.T) {
			m := m
			m.Type = kind
			p := start(t, m, Options{})
			await(t, "console output", func() bool { return bytes.Contains(p.Console(), []byte("tiny\n")) })
			status, err := p.Execute(t.Context(), "query-status", nil)
			if err != nil || !bytes.Contains(status, []byte(`"running"`)) {
				t.Errorf("status %s, %v", status, err)
			}
			var refusal *CommandError
			if _, err := p.Execute(t.Context(), "no-such-command", nil); !errors.As(err, &refusal) {
				t.Errorf("got %v, want a CommandError", err)
			}
			for range 2 {
				if err := p.Close(); err != nil {
					t.Error(err)
				}
			}
			awaitDone(t, p)
			if err := p.Err(); err != nil {
				t.Errorf("after Close: %v", err)
			}
			if _, err := p.Execute(t.Context(), "query-status", nil); err == nil {
				t.Error("the monitor answers after Close")
			}
		})
	}
}

// Everything that waits on a machine must fail at once when it dies.
func TestProcessDeathClosesStreams(t *testing.T) {
	testenv.CheckLeaks(t)
	p := start(t, tinyMachine(t), Options{})
	conns := map[string]net.Conn{"control": p.Control(), "files": p.Files(), "network": p.Network()}
	failed := make(chan string, 2*len(conns))
	for name, conn := range conns {
		go func() { _, _ = conn.Read(make([]byte, 1)); failed <- name }()
		go fill(conn, name, failed)
	}
	if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitDone(t, p)
	for range cap(failed) {
		select {
		case <-failed:
		case <-time.After(testDeadline):
			t.Fatal("a Read or Write is still waiting")
		}
	}
	var exit *machine.ExitError
	if !errors.As(p.Err(), &exit) || exit.Cause != machine.CauseHost || !strings.Contains(exit.Reason, "killed") {
		t.Errorf("got %v, want that qemu was killed", p.Err())
	}
	if err := p.Close(); err != nil || p.Err() == nil {
		t.Errorf("Close after the end: %v, and Err is %v", err, p.Err())
	}
}

// fill writes until it fails; nobody reads on the other side.
func fill(conn net.Conn, name string, failed chan<- string) {
	for {
		if _, err := conn.Write(make([]byte, 1<<16)); err != nil {
			failed <- name
			return
		}
	}
}

func TestStreamsHaveDeadlines(t *testing.T) {
	testenv.CheckLeaks(t)
	p := start(t, tinyMachine(t), Options{})
	for _, conn := range []net.Conn{p.Control(), p.Files(), p.Network()} {
		if err := conn.SetReadDeadline(time.Now()); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read gives %v, not that its deadline passed", err)
		}
	}
}

func TestStartFailures(t *testing.T) {
	testenv.CheckLeaks(t)
	good := tinyMachine(t)
	for name, tc := range map[string]struct {
		change func(*Machine)
		want   []string
	}{
		"kernel missing":   {func(m *Machine) { m.Kernel = "/nonexistent/vmlinuz" }, []string{"Kernel", "/nonexistent/vmlinuz"}},
		"kernel directory": {func(m *Machine) { m.Kernel = "/" }, []string{"Kernel", "not a regular file"}},
		"root missing":     {func(m *Machine) { m.Root.Path = "/nonexistent/root" }, []string{"Root", "/nonexistent/root"}},
		"binary missing":   {func(m *Machine) { m.Binary = "/nonexistent/qemu" }, []string{"cannot find /nonexistent/qemu\ninstall", "apt", "brew"}},
		"no memory":        {func(m *Machine) { m.Memory = 0 }, []string{"Memory"}},
		"refused by QEMU":  {func(m *Machine) { m.CPUModel = "no-such-model" }, []string{"cannot start qemu", "did not start: exit status 1", "no-such-model"}},
		"not QEMU":         {func(m *Machine) { m.Binary = "/bin/false" }, []string{"cannot start qemu", "exit status 1"}},
		"not a program":    {func(m *Machine) { m.Binary = m.Kernel }, []string{"cannot start qemu", "permission denied"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := good
			tc.change(&m)
			p, err := Start(t.Context(), m, Options{})
			if err == nil {
				p.Close()
				t.Fatal("it starts")
			}
			for _, w := range tc.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q lacks %q", err, w)
				}
			}
		})
	}
}

// A program that is not QEMU and never answers must not hold Start up.
func TestStartEndsWithItsContext(t *testing.T) {
	testenv.CheckLeaks(t)
	silent := filepath.Join(t.TempDir(), "silent")
	if err := os.WriteFile(silent, []byte("#!/bin/sh\nread -r _ <&3\nread -r _ <&3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	m := tinyMachine(t)
	m.Binary = silent
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if p, err := Start(ctx, m, Options{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, %v; want the deadline", p, err)
	}
}

func TestProcessIsConfined(t *testing.T) {
	testenv.NeedsLinux(t)
	testenv.CheckLeaks(t)
	t.Setenv("GONDOLIN_TEST_SECRET", "swordfish")
	p := start(t, tinyMachine(t), Options{})
	dir := fmt.Sprintf("/proc/%d/", p.PID())
	if env, err := os.ReadFile(dir + "environ"); err != nil || len(env) != 0 {
		t.Errorf("environment %q, %v; want none", env, err)
	}
	if cwd, err := os.Readlink(dir + "cwd"); err != nil || cwd != "/" {
		t.Errorf("working directory %q, %v", cwd, err)
	}
	if group, err := syscall.Getpgid(p.PID()); err != nil || group != p.PID() {
		t.Errorf("process group %d, %v; want its own", group, err)
	}
	threads, err := filepath.Glob(dir + "task/*/status")
	if err != nil || len(threads) < 2 {
		t.Fatalf("threads %v, %v", threads, err)
	}
	for _, status := range threads {
		text, err := os.ReadFile(status)
		if err != nil {
			continue // a worker thread that ended
		}
		for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
			if !bytes.Contains(text, []byte(want)) {
				t.Errorf("%s lacks %q", status, want)
			}
		}
	}
	checkListening(t, dir)
}

// checkListening fails if the process has a socket that listens or has a name.
func checkListening(t *testing.T, dir string) {
	t.Helper()
	held := map[string]bool{}
	fds, _ := filepath.Glob(dir + "fd/*")
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil {
			held[to] = true
		}
	}
	table, err := os.ReadFile(dir + "net/unix") // inode is field 7, a name field 8
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) < 7 || !held["socket:["+f[6]+"]"] {
			continue
		}
		found++
		if len(f) > 7 {
			t.Errorf("qemu holds the named socket %s", f[7])
		}
	}
	if found != 5 || strings.Count(fmt.Sprint(held), "socket:") != 5 {
		t.Errorf("qemu holds %d unix sockets of %v, want 5 and no others", found, held)
	}
}

func TestManyCyclesLeakNothing(t *testing.T) {
	testenv.CheckLeaks(t)
	m := tinyMachine(t)
	for i := range 20 {
		p, err := Start(t.Context(), m, Options{})
		if err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
		if err := p.Close(); err != nil {
			t.Fatalf("close %d: %v", i, err)
		}
	}
}

func TestEventsArrive(t *testing.T) {
	testenv.CheckLeaks(t)
	names := make(chan string, 16)
	p := start(t, tinyMachine(t), Options{Event: func(e Event) { names <- e.Name }})
	for _, command := range []string{"stop", "cont", "quit"} {
		if _, err := p.Execute(t.Context(), command, nil); err != nil {
			t.Fatal(err)
		}
	}
	awaitDone(t, p)
	var got []string
	for len(names) > 0 {
		got = append(got, <-names)
	}
	if s := strings.Join(got, " "); !strings.Contains(s, "STOP") || !strings.Contains(s, "SHUTDOWN") {
		t.Errorf("events %q", s)
	}
	var exit *machine.ExitError
	if !errors.As(p.Err(), &exit) || !strings.Contains(exit.Reason, "told to quit") {
		t.Errorf("got %v, want that qemu was told to quit", p.Err())
	}
}

const parentVar = "GONDOLIN_TEST_PARENT"

// TestParentDeath starts this test again as a program that starts QEMU and then
// dies of SIGKILL, and waits for QEMU to go too.
func TestParentDeath(t *testing.T) {
	if os.Getenv(parentVar) != "" {
		playParent(t)
		return
	}
	testenv.CheckLeaks(t)
	testenv.NeedsQEMU(t)
	testenv.NeedsLinux(t) // reading the end of a process that is not a child
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestParentDeath$", "-test.v")
	cmd.Env = append(os.Environ(), parentVar+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for pid == 0 {
		var word string
		if _, err := fmt.Fscan(out, &word); err != nil {
			t.Fatal("the parent said no pid: ", err)
		}
		_, _ = fmt.Sscanf(word, "qemu-pid=%d", &pid)
	}
	qemu, err := os.FindProcess(pid) // a pidfd: the pid cannot be reused under it
	if err != nil {
		t.Fatal(err)
	}
	if err := qemu.Signal(syscall.Signal(0)); err != nil {
		t.Fatal("qemu does not run: ", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // reports the kill
	await(t, "qemu's end", func() bool { return isGone(pid, qemu) })
	_ = qemu.Release()
}

// isGone: a process whose new parent has not reaped it yet is dead all the same.
func isGone(pid int, p *os.Process) bool {
	if p.Signal(syscall.Signal(0)) != nil {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(after, "Z") || strings.HasPrefix(after, "X")
}

func playParent(t *testing.T) {
	p, err := Start(t.Context(), tinyMachine(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	// Thread churn: the thread that forked must not be among those that end.
	for range 20 {
		go func() { runtime.LockOSThread() }()
	}
	fmt.Printf("qemu-pid=%d\n", p.PID())
	_, _ = os.Stdin.Read(make([]byte, 1)) // until killed
}

func TestGuard(t *testing.T) {
	testenv.CheckLeaks(t)
	for _, name := range []string{"host dies", "host stops it"} {
		t.Run(name, func(t *testing.T) {
			victim := exec.Command("/bin/cat")
			in, err := victim.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := victim.Start(); err != nil {
				t.Fatal(err)
			}
			g, err := startGuard()
			if err != nil {
				t.Fatal(err)
			}
			if err := g.watch(victim.Process.Pid); err != nil {
				t.Fatal(err)
			}
			if name == "host dies" {
				g.pipe.Close() // as the kernel does
				if err := victim.Wait(); err == nil || err.Error() != "signal: killed" {
					t.Errorf("the victim ended with %v", err)
				}
				if err := g.cmd.Wait(); err != nil {
					t.Errorf("the guard ended with %v", err)
				}
				return
			}
			g.stop()
			in.Close()
			if err := victim.Wait(); err != nil {
				t.Errorf("the victim ended with %v, although nobody died", err)
			}
		})
	}
}
