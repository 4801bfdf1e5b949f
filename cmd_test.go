package gondolin_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"gondolin"
	"gondolin/internal/vmtest"
)

// One VM serves all of these: commands do not touch each other.
func TestCommand(t *testing.T) {
	vm := vmtest.Start(t, gondolin.Config{Env: map[string]string{"BASE": "1", "OVER": "vm"}})
	for name, test := range map[string]func(*testing.T, *gondolin.VM){
		"output and exit code":  testExit,
		"environment":           testEnv,
		"programs that are not": testStartErrors,
		"user":                  testUser,
		"descriptors by name":   testDescriptorsByName,
		"cgroups are removed":   testCgroups,
		"pipes":                 testPipes,
		"100 MB through cat":    testSlowReader,
		"background child":      testBackground,
		"cancel":                testCancel,
		"cancel leaves nothing": testCancelKillsAll,
		"deadline":              testDeadline,
		"signal":                testSignal,
		"terminal":              testTerminal,
		"many at once":          testMany,
		"writer that fails":     testFailingWriter,
		"orphans are reaped":    testOrphans,
		"arguments":             testArguments,
	} {
		t.Run(name, func(t *testing.T) { test(t, vm) })
	}
}

func testExit(t *testing.T, vm *gondolin.VM) {
	out, err := vm.Shell(t.Context(), "echo out; echo err >&2; exit 3").Output()
	var exit *gondolin.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || string(exit.Stderr) != "err\n" || string(out) != "out\n" {
		t.Errorf("%q, %v", out, err)
	}
	both, err := vm.Shell(t.Context(), "echo out; echo err >&2").CombinedOutput()
	if string(both) != "out\nerr\n" || err != nil {
		t.Errorf("%q, %v", both, err)
	}
	err = vm.Shell(t.Context(), "kill -KILL $$").Run()
	if !errors.As(err, &exit) || exit.Signal != syscall.SIGKILL || exit.ExitCode() != 137 {
		t.Errorf("%v", err)
	}
}

func testEnv(t *testing.T, vm *gondolin.VM) {
	c := vm.Command(t.Context(), "sh", "-c", "echo $BASE $OVER $MINE; pwd")
	c.Env = []string{"OVER=cmd", "MINE=x"}
	c.Dir = "/usr/bin"
	if out, err := c.Output(); string(out) != "1 cmd x\n/usr/bin\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	if out := vmtest.Output(t, vm, "echo $HOME; pwd"); out != "/root\n/root\n" {
		t.Errorf("%q", out)
	}
}

func testStartErrors(t *testing.T, vm *gondolin.VM) {
	for _, test := range []struct {
		name, dir string
		code      int
		text      string
	}{
		{"no-such-program", "", 127, `"no-such-program"`},
		{"/no/such", "", 127, "/no/such"},
		{"/etc/passwd", "", 126, "not executable"},
		{"true", "/no/dir", 127, `"/no/dir"`},
	} {
		c := vm.Command(t.Context(), test.name)
		c.Dir = test.dir
		err := c.Run()
		var start *gondolin.StartError
		if !errors.As(err, &start) || start.ExitCode() != test.code || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %v", test.name, err)
		}
		if got := errors.Is(err, exec.ErrNotFound); got != (test.code == 127 && test.dir == "") {
			t.Errorf("%s: errors.Is(exec.ErrNotFound) is %v", test.name, got)
		}
	}
	if err := vm.Command(t.Context(), "true", "a\x00b").Run(); err == nil || !strings.Contains(err.Error(), "NUL") {
		t.Errorf("NUL in an argument: %v", err)
	}
}

func testUser(t *testing.T, vm *gondolin.VM) {
	for user, want := range map[string]string{
		"": "0 0 /root", "nobody": "65534 65534 /", "1234": "1234 0 /", "1234:56": "1234 56 /", "daemon:tty": "1 5 /usr/sbin",
	} {
		c := vm.Command(t.Context(), "sh", "-c", "echo $(id -u) $(id -g) $PWD")
		c.User = user
		if out, err := c.Output(); strings.TrimSpace(string(out)) != want || err != nil {
			t.Errorf("%q: %q, %v", user, out, err)
		}
	}
}

// Descriptors can be opened by their names, whoever the command runs as.
func testDescriptorsByName(t *testing.T, vm *gondolin.VM) {
	c := vm.Command(t.Context(), "sh", "-c", "cat </dev/stdin >/dev/stdout; echo err >/dev/stderr")
	c.User, c.Stdin = "nobody", strings.NewReader("in\n")
	if out, err := c.CombinedOutput(); string(out) != "in\nerr\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	c = vm.Command(t.Context(), "sh", "-c", `echo out >"$(tty)"; stat -c %U:%G "$(tty)"`)
	c.User, c.TTY = "nobody", &gondolin.Size{Rows: 24, Cols: 80}
	if out, err := c.Output(); string(out) != "out\r\nnobody:tty\r\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
}

// A cgroup outlives its command only as long as something in it.
func testCgroups(t *testing.T, vm *gondolin.VM) {
	group := "/sys/fs/cgroup" + strings.TrimSpace(vmtest.Output(t, vm,
		"sleep 4321 >/dev/null 2>&1 & cut -d: -f3 /proc/self/cgroup"))
	if !strings.Contains(group, "/exec-") {
		t.Fatalf("the command's cgroup is %q", group)
	}
	vmtest.Output(t, vm, "test -d "+group)
	vmtest.Output(t, vm, "pkill -fx 'sleep 4321'; while pgrep -fx 'sleep 4321'; do sleep 0.01; done")
	vmtest.Output(t, vm, "test ! -d "+group)
}

func testPipes(t *testing.T, vm *gondolin.VM) {
	c := vm.Command(t.Context(), "tr", "a-z", "A-Z")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if c.PID() <= 1 {
		t.Errorf("pid %d", c.PID())
	}
	go func() {
		fmt.Fprint(in, "hello")
		in.Close()
	}()
	b, err := io.ReadAll(out)
	if string(b) != "HELLO" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

// slowWriter writes to a hash, pausing now and then.
type slowWriter struct {
	hash  io.Writer
	bytes int
}

func (w *slowWriter) Write(p []byte) (int, error) {
	if w.bytes += len(p); w.bytes%(4<<20) < len(p) {
		<-time.After(time.Millisecond)
	}
	return w.hash.Write(p)
}

func testSlowReader(t *testing.T, vm *gondolin.VM) {
	const size = 100 << 20
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	sum := sha256.New()
	c := vm.Command(t.Context(), "cat")
	c.Stdin, c.Stdout = bytes.NewReader(data), &slowWriter{hash: sum}
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	if want := sha256.Sum256(data); !bytes.Equal(sum.Sum(nil), want[:]) {
		t.Error("content differs")
	}
}

func testBackground(t *testing.T, vm *gondolin.VM) {
	c := vm.Shell(t.Context(), "sleep 1000 & echo started")
	c.WaitDelay = 50 * time.Millisecond
	var out bytes.Buffer
	c.Stdout = &out
	if err := c.Run(); !errors.Is(err, exec.ErrWaitDelay) || out.String() != "started\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	// By default it is no error.
	if out, err := vm.Shell(t.Context(), "sleep 1000 & echo started").Output(); string(out) != "started\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	if out := vmtest.Output(t, vm, "pgrep -c sleep; pkill sleep"); strings.TrimSpace(out) != "2" {
		t.Errorf("%q background children live on, not 2", out)
	}
}

func testCancel(t *testing.T, vm *gondolin.VM) {
	ctx, cancel := context.WithCancel(t.Context())
	c := vm.Shell(ctx, `trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 0.01; done`)
	out := watch(c, "ready", cancel)
	err := c.Run()
	var exit *gondolin.ExitError
	if !errors.Is(err, context.Canceled) || !errors.As(err, &exit) || exit.ExitCode() != 5 || !strings.Contains(out.String(), "asked") {
		t.Errorf("%v, %q", err, out.String())
	}
}

// A cancelled command takes everything it started with it: what ignores TERM,
// and what left its session.
func testCancelKillsAll(t *testing.T, vm *gondolin.VM) {
	ctx, cancel := context.WithCancel(t.Context())
	c := vm.Shell(ctx, `trap '' TERM; setsid sh -c 'trap "" TERM; exec sleep 7777' & sleep 7777 & echo ready; wait; sleep 7777`)
	c.Grace = 100 * time.Millisecond
	watch(c, "ready", cancel)
	err := c.Run()
	var exit *gondolin.ExitError
	if !errors.As(err, &exit) || exit.Signal != syscall.SIGKILL {
		t.Errorf("%v", err)
	}
	if out := vmtest.Output(t, vm, "pgrep -fx 'sleep 7777' | wc -l"); strings.TrimSpace(out) != "0" {
		t.Errorf("%s processes survived", out)
	}
}

// watch calls seen once the command has written text.
func watch(c *gondolin.Cmd, text string, seen func()) *bytes.Buffer {
	w := &watcher{text: text, seen: seen}
	c.Stdout = w
	return &w.buf
}

type watcher struct {
	buf  bytes.Buffer
	text string
	seen func()
}

func (w *watcher) Write(p []byte) (int, error) {
	w.buf.Write(p)
	if strings.Contains(w.buf.String(), w.text) {
		w.seen()
	}
	return len(p), nil
}

func testDeadline(t *testing.T, vm *gondolin.VM) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := vm.Command(ctx, "sleep", "1000").Run(); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func testSignal(t *testing.T, vm *gondolin.VM) {
	c := vm.Shell(t.Context(), `trap 'echo got; exit 0' USR1; echo ready; while :; do sleep 0.01; done`)
	out := watch(c, "ready", func() { _ = c.Signal(syscall.SIGUSR1) })
	if err := c.Run(); err != nil || !strings.Contains(out.String(), "got") {
		t.Errorf("%v, %q", err, out.String())
	}
	if err := c.Signal(syscall.SIGUSR1); err == nil {
		t.Error("a command that has ended took a signal")
	}
}

func testTerminal(t *testing.T, vm *gondolin.VM) {
	c := vm.Command(t.Context(), "sh", "-c", "tty; stty size; exec cat")
	c.TTY = &gondolin.Size{Rows: 31, Cols: 99}
	c.Stdin = strings.NewReader("typed\n")
	out, err := c.Output()
	if err != nil || !strings.Contains(string(out), "/dev/pts/") || !strings.Contains(string(out), "31 99") ||
		strings.Count(string(out), "typed") != 2 { // once echoed, once by cat
		t.Errorf("%q, %v", out, err)
	}
}

func testMany(t *testing.T, vm *gondolin.VM) {
	const n = 40
	errs := make(chan error, n)
	for i := range n {
		go func() {
			out, err := vm.Command(t.Context(), "echo", fmt.Sprint(i)).Output()
			if err == nil && string(out) != fmt.Sprintln(i) {
				err = fmt.Errorf("%d: %q", i, out)
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

type failingWriter struct{}

var errFull = errors.New("full")

func (failingWriter) Write([]byte) (int, error) { return 0, errFull }

func testFailingWriter(t *testing.T, vm *gondolin.VM) {
	c := vm.Command(t.Context(), "sh", "-c", "yes; exit 0")
	c.Stdout = failingWriter{}
	if err := c.Run(); !errors.Is(err, errFull) {
		t.Error(err)
	}
}

func testOrphans(t *testing.T, vm *gondolin.VM) {
	vmtest.Output(t, vm, "for i in $(seq 50); do (sh -c 'exit 0' &); done")
	out := vmtest.Output(t, vm, "sleep 0.2; grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l")
	if strings.TrimSpace(out) != "0" {
		t.Errorf("%s zombies", out)
	}
}

func testArguments(t *testing.T, vm *gondolin.VM) {
	odd := []string{"a b", "", "'\"$`\\", "new\nline", "\xff\xfe", "-n"}
	out, err := vm.Command(t.Context(), "printf", append([]string{`%s|`}, odd...)...).Output()
	if want := strings.Join(odd, "|") + "|"; string(out) != want || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	big := strings.Repeat("x", 100<<10)
	if out, err := vm.Command(t.Context(), "sh", "-c", "echo ${#1}", "sh", big).Output(); string(out) != "102400\n" || err != nil {
		t.Errorf("%.20q, %v", out, err)
	}
}
