package jail

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gondolin/internal/testenv"
)

// allowed are the attempts of testdata/standin that a jailed program may make.
var allowed = []string{"own file", "own library", "own thread"}

// hopeless are those that nobody needs to succeed with outside of a jail, for
// reasons of the place: a test as root in a container may lack the right.
var hopeless = map[string]bool{
	"read /etc/shadow": true, "list /root": true, "read /proc/1/environ": true, "own library": true,
	"trace another": true, "trace the parent": true, "mount": true, "make a namespace": true,
	"io_uring": true, "become root": true, "link": true,
}

const userEnv = "GONDOLIN_TEST_JAIL_STANDIN"

func buildStandIn(t *testing.T, dir string) string {
	t.Helper()
	out := filepath.Join(dir, "standin")
	cmd := exec.Command(testenv.NeedsTool(t, "go"), "build", "-o", out, "./testdata/standin")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
}

// openDir is a directory that every user can enter.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "jail") //nolint:usetesting // whose directories are closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// scene is what the stand-in works on.
type scene struct {
	program, dir, tcp, abstract string
	victim                      *exec.Cmd
}

// newScene makes everything as open as the file system's modes can say, so that only the jail stands in the way.
func newScene(t *testing.T, program string) *scene {
	t.Helper()
	s := &scene{program: program, dir: openDir(t), victim: exec.Command("/bin/sleep", "600")}
	for _, name := range []string{"secret", "open", "victim", "shared"} {
		path := filepath.Join(s.dir, name)
		if err := os.WriteFile(path, make([]byte, 16<<10), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	s.abstract = "@gondolin-test-" + filepath.Base(s.dir)
	for network, address := range map[string]string{
		"unix": filepath.Join(s.dir, "socket"), "unixpacket": "", "tcp": "127.0.0.1:0",
	} {
		if network == "unixpacket" {
			network, address = "unix", s.abstract
		}
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		if network == "tcp" {
			s.tcp = l.Addr().String()
		}
	}
	if err := os.Chmod(filepath.Join(s.dir, "socket"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := s.victim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.victim.Process.Kill(); _ = s.victim.Wait() })
	return s
}

// run lets the stand-in try everything, in a jail unless config is nil.
func (s *scene) run(t *testing.T, config *Config) map[string]string {
	t.Helper()
	shared, err := os.Open(filepath.Join(s.dir, "shared"))
	if err != nil {
		t.Fatal(err)
	}
	defer shared.Close()
	wait, release, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer wait.Close()
	defer release.Close()
	var out bytes.Buffer
	cmd := &exec.Cmd{
		Path: s.program, Args: []string{"standin", s.dir, strconv.Itoa(s.victim.Process.Pid), s.tcp, s.abstract},
		Env: []string{}, Dir: "/", Stdout: &out, Stderr: &out,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	start, end := cmd.Start, cmd.Wait
	if config != nil {
		j, err := New(*config)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := j.Close(); err != nil {
				t.Error(err)
			}
		}()
		if shared, err = j.Open(shared, Write); err != nil {
			t.Fatal(err)
		}
		start, end = func() error { return j.Start(cmd) }, j.Wait
		defer func() { t.Logf("as user %d:\n%s", os.Geteuid(), j.Report()) }()
	}
	cmd.ExtraFiles = []*os.File{wait, shared}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	release.Close()
	if err := end(); err != nil {
		t.Fatalf("%v\n%s", err, out.Bytes())
	}
	results := map[string]string{}
	for line := range strings.Lines(out.String()) {
		name, result, _ := strings.Cut(strings.TrimSpace(line), ": ")
		results[name] = result
	}
	return results
}

// checkStandIn compares what a stand-in can do in and out of the jail.
func checkStandIn(t *testing.T, program string) {
	t.Helper()
	s := newScene(t, program)
	config := Config{
		Program: program, OpenFiles: 64, Threads: 64, Memory: 512 << 20, CPUs: 1, Frozen: true, Strict: true,
	}
	jailed := s.run(t, &config)
	free := s.run(t, nil)
	if len(jailed) != len(free) || len(jailed) < 30 {
		t.Errorf("%d attempts in the jail, %d outside", len(jailed), len(free))
	}
	may := map[string]bool{}
	for _, name := range allowed {
		may[name] = true
	}
	for name, result := range jailed {
		t.Logf("%s: in the jail %s; outside %s", name, result, free[name])
		if (result == "done") != may[name] {
			t.Errorf("in the jail, %s: %s", name, result)
		}
		if free[name] != "done" && !hopeless[name] {
			t.Errorf("outside, %s: %s; so the attempt says nothing", name, free[name])
		}
	}
}

func TestStandIn(t *testing.T) {
	testenv.CheckLeaks(t)
	checkStandIn(t, buildStandIn(t, openDir(t)))
}

// As an ordinary user, which the test becomes by running itself as one.
func TestStandInOfOrdinaryUser(t *testing.T) {
	if program := os.Getenv(userEnv); program != "" {
		testenv.CheckLeaks(t)
		checkStandIn(t, program)
		return
	}
	testenv.NeedsRoot(t)
	testenv.CheckLeaks(t)
	dir := openDir(t)
	program := buildStandIn(t, dir)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "test")
	if err := os.WriteFile(copied, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(copied, "-test.run=^TestStandInOfOrdinaryUser$", "-test.v")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), userEnv+"="+program, "HOME="+dir, "TMPDIR="+os.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
	text, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(text, []byte("--- PASS")) {
		t.Fatalf("%v\n%s", err, text)
	}
	t.Logf("%s", text)
}

func TestCovers(t *testing.T) {
	for _, tc := range []struct {
		text     string
		first, n uint64
		want     bool
	}{
		{"         0          0 4294967295\n", firstUser, users + 1, true},
		{"0 1000 1\n", firstUser, users + 1, false},
		{"0 1000 1\n1 100000 65536\n", nobody, 1, true},
		{"0 1000 65534\n", nobody, 1, false},
		{"garbage\n", 0, 1, false},
		{"0 0 18446744073709551615\n", ^uint64(0), 1, false},
		{"", 0, 1, false},
	} {
		if got := covers(tc.text, tc.first, tc.n); got != tc.want {
			t.Errorf("covers(%q, %d, %d) = %v", tc.text, tc.first, tc.n, got)
		}
	}
}

// Every kernel's ABI must get rights that it knows, and no more.
func TestAttrFor(t *testing.T) {
	for abi, want := range map[int]uint64{1: 1<<13 - 1, 2: 1<<14 - 1, 3: 1<<15 - 1, 4: 1<<15 - 1, 5: 1<<16 - 1, 7: 1<<16 - 1} {
		attr := attrFor(abi, 0)
		if attr.Handled_access_fs != want || (attr.Handled_access_net != 0) != (abi >= 4) || (attr.Scoped != 0) != (abi >= 6) {
			t.Errorf("ABI %d: %+v", abi, attr)
		}
	}
	if attrFor(6, 0).Scoped == attrFor(6, sameProcessErratum).Scoped {
		t.Error("signals are scoped on a kernel on which that stops Go's runtime")
	}
}

func TestFindPlaces(t *testing.T) {
	const v1 = "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n" +
		"31 25 0:27 /outer /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
	const v2 = "32 25 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
	for _, tc := range []struct{ mounts, own, want string }{
		{v2, "0::/user.slice/app.scope\n", "[{2 /sys/fs/cgroup /user.slice/app.scope}]"},
		{
			v1, "4:memory:/a\n2:cpu,cpuacct:/outer/b\n9:name=systemd:/\n",
			"[{1 /sys/fs/cgroup/cpu,cpuacct /b} {1 /sys/fs/cgroup/memory /a}]",
		},
		{v1, "2:cpu,cpuacct:/elsewhere\n", "[]"},
		{v2, "0::/../..\n", "[]"},
		{"", "0::/\n", "[]"},
	} {
		if got := fmt.Sprint(findPlaces(tc.mounts, tc.own)); got != tc.want {
			t.Errorf("findPlaces(%q) = %s, want %s", tc.own, got, tc.want)
		}
	}
}

// A layer that cannot be had is told of, and refused only by who asks for all.
func TestStrict(t *testing.T) {
	testenv.NeedsRoot(t)
	testenv.CheckLeaks(t)
	program := buildStandIn(t, t.TempDir()) // which other users cannot enter
	for _, strict := range []bool{false, true} {
		j, err := New(Config{Program: program, Strict: strict})
		if err != nil {
			t.Fatal(err)
		}
		cmd := &exec.Cmd{
			Path: program, Args: []string{"standin", "/", "0", "", ""}, Env: []string{}, Dir: "/",
			SysProcAttr: &syscall.SysProcAttr{},
		}
		err = j.Start(cmd)
		if err == nil {
			_ = cmd.Process.Kill()
			_ = j.Wait()
		}
		if (err != nil) != strict || strict && !strings.Contains(err.Error(), "user: other users may not enter") {
			t.Errorf("strict %v: %v", strict, err)
		}
		if !strict && !slices.Contains(j.Report().Missing(), layerUser) {
			t.Errorf("missing: %v", j.Report().Missing())
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The program must not outlive the thread that holds it, across users and the
// signals that the jail forbids.
func TestDiesWithTheHost(t *testing.T) {
	if program := os.Getenv(hostEnv); program != "" {
		dieAsHost(t, program)
		return
	}
	testenv.CheckLeaks(t)
	program := buildStandIn(t, openDir(t))
	host := exec.Command("/proc/self/exe", "-test.run=^TestDiesWithTheHost$")
	host.Env = append(os.Environ(), hostEnv+"="+program)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	host.ExtraFiles = []*os.File{write} // the program inherits it, and holds it as long as it lives
	err = host.Run()
	write.Close()
	if host.ProcessState == nil || host.ProcessState.Success() {
		t.Fatalf("the host did not kill itself: %v", err)
	}
	if err := read.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(read); err != nil || string(text) != "started" {
		t.Errorf("%q, %v; the program is still there or never was", text, err)
	}
}

const hostEnv = "GONDOLIN_TEST_JAIL_HOST"

func dieAsHost(t *testing.T, program string) {
	t.Helper()
	alive := os.NewFile(3, "alive")
	j, err := New(Config{Program: program})
	if err != nil {
		t.Fatal(err)
	}
	wait, _, err := os.Pipe() // never released
	if err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{
		Path: program, Args: []string{"standin", "/", "0", "", ""}, Env: []string{}, Dir: "/",
		ExtraFiles: []*os.File{wait, alive}, SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	if err := j.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if _, err := alive.WriteString("started"); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
