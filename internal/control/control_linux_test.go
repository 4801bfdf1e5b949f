package control

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gondolin/internal/guest/execd"
	"gondolin/internal/guest/reap"
	"gondolin/internal/rpc"
	"gondolin/internal/testenv"
	"gondolin/internal/wire"
)

// connect joins a client to a real execd in this process, over a pipe.
func connect(t *testing.T) *Client {
	t.Helper()
	testenv.CheckLeaks(t)
	host, guest := rpc.Pipe()
	c, err := New(host)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // outlives the cleanup
	reaper := new(reap.Reaper)
	server := &execd.Server{Reaper: reaper, Log: slog.New(slog.DiscardHandler)}
	server.SetEnv([]string{"BASE=1", "OVER=base"})
	served, reaped := make(chan error, 1), make(chan error, 1)
	var handlers sync.WaitGroup
	go func() { served <- rpc.Serve(ctx, guest, dispatch(server, &handlers)) }()
	go func() { reaped <- reaper.Run(ctx) }()
	t.Cleanup(func() {
		c.Close()
		<-served
		handlers.Wait() // every command is killed and reaped
		cancel()
		<-reaped
	})
	return c
}

func dispatch(s *execd.Server, handlers *sync.WaitGroup) rpc.Handler {
	return func(ctx context.Context, first wire.Message, stream *rpc.Stream) {
		handlers.Add(1)
		defer handlers.Done()
		switch m := first.(type) {
		case *wire.Exec:
			s.Exec(ctx, m, stream)
		case *wire.Attach:
			s.Attach(ctx, m, stream)
		default:
			stream.Abort()
		}
	}
}

func command(args ...string) wire.Exec {
	req := wire.Exec{Streams: wire.Stdin | wire.Stdout | wire.Stderr, WaitDelay: time.Minute, Dir: []byte("/")}
	for _, a := range args {
		req.Args = append(req.Args, []byte(a))
	}
	return req
}

func shell(script string) wire.Exec { return command("/bin/sh", "-c", script) }

// finish reads all output and waits for the end.
func finish(t *testing.T, p *Process) (stdout, stderr string, exit wire.Exited) {
	t.Helper()
	errs := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(p.Stderr)
		errs <- b
	}()
	out, err := io.ReadAll(p.Stdout)
	if err != nil {
		t.Error(err)
	}
	errOut := <-errs
	<-p.Exited()
	exit, err = p.Exit()
	if err != nil {
		t.Error(err)
	}
	<-p.Drained()
	closeAll(p)
	return string(out), string(errOut), exit
}

func closeAll(p *Process) {
	if p.Stdin != nil {
		p.Stdin.Close()
	}
	if p.Stdout != nil {
		p.Stdout.Close()
	}
	if p.Stderr != nil {
		p.Stderr.Close()
	}
	p.Release()
}

func start(t *testing.T, c *Client, req wire.Exec) *Process {
	t.Helper()
	p, err := c.Start(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOutputAndExit(t *testing.T) {
	c := connect(t)
	out, errOut, exit := finish(t, start(t, c, shell("echo out; echo err >&2; exit 3")))
	if out != "out\n" || errOut != "err\n" || exit != (wire.Exited{Code: 3}) {
		t.Errorf("%q %q %+v", out, errOut, exit)
	}
	_, _, exit = finish(t, start(t, c, shell("kill -SEGV $$")))
	if exit.Signal != int(syscall.SIGSEGV) {
		t.Errorf("%+v", exit)
	}
}

func TestEnvironmentAndDirectory(t *testing.T) {
	c := connect(t)
	req := shell(`echo "$BASE $OVER $MINE $HOME"; pwd`)
	req.Env = [][]byte{[]byte("OVER=cmd"), []byte("MINE=a b"), []byte("HOME=/h")}
	req.Dir = []byte("/usr")
	out, _, _ := finish(t, start(t, c, req))
	if out != "1 cmd a b /h\n/usr\n" {
		t.Errorf("%q", out)
	}
}

func TestStartFailures(t *testing.T) {
	c := connect(t)
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := dir + "/" + name
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	missingDir := command("true")
	missingDir.Dir = []byte("/no/such/dir")
	fileDir := command("true")
	fileDir.Dir = []byte("/etc/passwd")
	user := command("true")
	user.User = "nobody-here"
	for name, test := range map[string]struct {
		req    wire.Exec
		reason wire.Reason
		text   string
	}{
		"not in PATH":    {command("no-such-program"), wire.ReasonNotFound, "no-such-program"},
		"no such file":   {command("/no/such/program"), wire.ReasonNotFound, "/no/such/program"},
		"directory":      {command("/etc"), wire.ReasonNotExecutable, "directory"},
		"not executable": {command(write("data", "x", 0o644)), wire.ReasonNotExecutable, "data"},
		"format":         {command(write("format", "\x7fELFnot", 0o755)), wire.ReasonNotExecutable, "format"},
		"interpreter":    {command(write("script", "#!/no/such/sh\n", 0o755)), wire.ReasonNotFound, "interpreter"},
		"missing dir":    {missingDir, wire.ReasonDirectory, "/no/such/dir"},
		"file as dir":    {fileDir, wire.ReasonDirectory, "not a directory"},
		"user":           {user, wire.ReasonUser, "nobody-here"},
		"too long":       {command("true", strings.Repeat("x", 200<<10)), wire.ReasonTooLarge, "too long"},
	} {
		_, err := c.Start(t.Context(), test.req)
		var failed *wire.Failed
		if !errors.As(err, &failed) || failed.Reason != test.reason || !strings.Contains(failed.Text, test.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Start(t.Context(), command("true", "a\x00b")); err == nil || !strings.Contains(err.Error(), "NUL") {
		t.Errorf("NUL: %v", err)
	}
}

func TestSearchesPath(t *testing.T) {
	c := connect(t)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/hello", []byte("#!/bin/sh\necho found\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	req := command("hello")
	req.Env = [][]byte{[]byte("PATH=/nowhere:" + dir)}
	if out, _, _ := finish(t, start(t, c, req)); out != "found\n" {
		t.Errorf("%q", out)
	}
}

// cat answers while it reads, with a reader far slower than the writer: both
// pipes fill and nothing may deadlock or be lost.
func TestSlowReader(t *testing.T) {
	c := connect(t)
	p := start(t, c, command("cat"))
	const size = 100 << 20
	block := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	go func() {
		for range size / len(block) {
			if _, err := p.Stdin.Write(block); err != nil {
				t.Error(err)
				break
			}
		}
		p.Stdin.Close()
	}()
	sum, want := sha256.New(), sha256.New()
	buf := make([]byte, 1000) // a slow reader: small reads, each after a pause
	for total, n := 0, 0; ; n++ {
		if n%4000 == 0 {
			<-time.After(time.Millisecond)
		}
		k, err := p.Stdout.Read(buf)
		sum.Write(buf[:k])
		if total += k; errors.Is(err, io.EOF) {
			if total != size {
				t.Errorf("%d bytes came back of %d", total, size)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		buf = buf[:min(cap(buf), 1000+n)]
		if n == 100 {
			buf = make([]byte, 64<<10)
		}
	}
	for range size / len(block) {
		want.Write(block)
	}
	if !bytes.Equal(sum.Sum(nil), want.Sum(nil)) {
		t.Error("content differs")
	}
	finish(t, p)
}

// A reader that does not read stops its own command only.
func TestSlowReaderStopsOnlyItsWriter(t *testing.T) {
	c := connect(t)
	stuck := start(t, c, command("cat", "/dev/zero"))
	out, _, _ := finish(t, start(t, c, shell("head -c 3000000 /dev/zero | wc -c")))
	if strings.TrimSpace(out) != "3000000" {
		t.Errorf("%q", out)
	}
	// The stuck one's other stream and its control still work.
	if err := stuck.Terminate(time.Second); err != nil {
		t.Error(err)
	}
	<-stuck.Exited()
	closeAll(stuck)
}

func TestOutputAfterExitIsDelivered(t *testing.T) {
	c := connect(t)
	req := shell("head -c 60000 /dev/zero; echo end; exec sleep 0")
	req.WaitDelay = 0
	out, _, _ := finish(t, start(t, c, req))
	if len(out) != 60004 || !strings.HasSuffix(out, "end\n") {
		t.Errorf("%d bytes", len(out))
	}
}

// A background child that keeps stdout open does not keep the command open,
// and what was written before the command's end still arrives.
func TestBackgroundChild(t *testing.T) {
	c := connect(t)
	req := shell("sleep 300 & echo $!; head -c 50000 /dev/zero")
	req.WaitDelay = 10 * time.Millisecond
	p := start(t, c, req)
	out, err := io.ReadAll(p.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	pid, rest, _ := strings.Cut(string(out), "\n")
	if len(rest) != 50000 {
		t.Errorf("%d bytes", len(rest))
	}
	if <-p.Drained(); !p.Cut() {
		t.Error("not reported as cut")
	}
	closeAll(p)
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Errorf("the background child is gone: %v", err)
	}
}

func TestTerminateKillsTheGroup(t *testing.T) {
	c := connect(t)
	p := start(t, c, shell(`trap '' TERM; sleep 300 & echo ready; wait; sleep 300`))
	if _, err := io.ReadFull(p.Stdout, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if err := p.Terminate(20 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	_, _, exit := finish(t, p) // ends only when the children that hold stdout are dead
	if exit.Signal != int(syscall.SIGKILL) {
		t.Errorf("%+v", exit)
	}
	if err := p.Signal(15); !errors.Is(err, ErrExited) {
		t.Errorf("signal after exit: %v", err)
	}
}

func TestReleaseKills(t *testing.T) {
	c := connect(t)
	p := start(t, c, shell("echo ready; sleep 300"))
	if _, err := io.ReadFull(p.Stdout, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	p.Release()
	if _, err := io.ReadAll(p.Stdout); err != nil { // EOF: the sleep is dead
		t.Error(err)
	}
	closeAll(p)
}

func TestClosedOutputIsABrokenPipe(t *testing.T) {
	c := connect(t)
	p := start(t, c, command("cat", "/dev/zero"))
	p.Stdout.Close()
	<-p.Exited()
	if exit, err := p.Exit(); err != nil || exit.Signal != int(syscall.SIGPIPE) {
		t.Errorf("%+v, %v", exit, err)
	}
	closeAll(p)
}

func TestStdinNobodyReads(t *testing.T) {
	c := connect(t)
	p := start(t, c, shell("exec <&-; echo ready; sleep 0.05"))
	var err error
	for err == nil {
		_, err = p.Stdin.Write(make([]byte, 64<<10))
	}
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	<-p.Stdin.Gone()
	finish(t, p)
}

func TestTerminal(t *testing.T) {
	c := connect(t)
	req := shell(`tty >/dev/null && stty size; read x; echo "got $x"; stty size; cat`)
	req.Streams, req.TTY = wire.Stdin|wire.Stdout, &wire.Size{Rows: 33, Cols: 77}
	p := start(t, c, req)
	var seen strings.Builder
	until := func(want string) {
		t.Helper()
		buf := make([]byte, 100)
		for !strings.Contains(seen.String(), want) {
			n, err := p.Stdout.Read(buf)
			if err != nil {
				t.Fatalf("%v after %q", err, seen.String())
			}
			seen.Write(buf[:n])
		}
	}
	until("33 77")
	if err := p.Resize(wire.Size{Rows: 40, Cols: 90}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Stdin.Write([]byte("hi\n")); err != nil {
		t.Fatal(err)
	}
	until("got hi")
	until("40 90")
	p.Stdin.Close() // becomes ^D, on which cat ends
	rest, err := io.ReadAll(p.Stdout)
	<-p.Exited()
	if exit, xerr := p.Exit(); err != nil || xerr != nil || exit.Code != 0 {
		t.Errorf("%+v, %v, %v, %q", exit, err, xerr, rest)
	}
	closeAll(p)
}

func TestStartIsCancelled(t *testing.T) {
	host, guest := rpc.Pipe() // a guest that never answers
	defer guest.Close()
	go io.Copy(io.Discard, guest)
	c, err := New(host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Start(ctx, command("true")); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestChannelEnds(t *testing.T) {
	c := connect(t)
	p := start(t, c, shell("sleep 300"))
	c.Close()
	<-p.Exited()
	if _, err := p.Exit(); !errors.Is(err, ErrClosed) {
		t.Errorf("exit: %v", err)
	}
	if _, err := p.Stdout.Read(make([]byte, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Start(t.Context(), command("true")); !errors.Is(err, ErrClosed) {
		t.Errorf("start: %v", err)
	}
	closeAll(p)
}
