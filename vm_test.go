package gondolin_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gondolin"
	"gondolin/internal/testenv"
	"gondolin/internal/vmtest"
	"gondolin/policy"
	"gondolin/vfs"
)

func TestValidate(t *testing.T) {
	for name, test := range map[string]struct {
		config gondolin.Config
		text   string
	}{
		"memory":         {gondolin.Config{Memory: 1}, "128 MiB"},
		"memory 1 TiB":   {gondolin.Config{Memory: 1 << 40}, "1 TiB"},
		"cpus":           {gondolin.Config{CPUs: 1000}, "1000 CPUs"},
		"negative cpus":  {gondolin.Config{CPUs: -1}, "-1 CPUs"},
		"hostname":       {gondolin.Config{Hostname: "a b"}, `"a b"`},
		"env name":       {gondolin.Config{Env: map[string]string{"A=B": "x"}}, `"A=B"`},
		"relative mount": {gondolin.Config{Mounts: map[string]vfs.FS{"work": vfs.Memory()}}, `"work"`},
		"nil mount":      {gondolin.Config{Mounts: map[string]vfs.FS{"/work": nil}}, "/work"},
		"mount twice":    {gondolin.Config{Mounts: map[string]vfs.FS{"/a": vfs.Memory(), "/a/": vfs.Memory()}}, "same place"},
		"mount on proc":  {gondolin.Config{Mounts: map[string]vfs.FS{"/proc/x": vfs.Memory()}}, "/proc"},
		"mount over run": {gondolin.Config{Mounts: map[string]vfs.FS{"/run": vfs.Memory()}}, "/run/gondolin"},
		"missing dir":    {gondolin.Config{Mounts: map[string]vfs.FS{"/w": vfs.Dir("/no/such")}}, "/no/such"},
	} {
		if err := test.config.Validate(); err == nil || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (gondolin.Config{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
}

// What is wrong with a config is said before anything starts.
func TestStartRefuses(t *testing.T) {
	testenv.CheckLeaks(t)
	_, err := gondolin.Start(t.Context(), gondolin.Config{
		Host:    gondolin.Host{Dir: t.TempDir()},
		Network: policy.Network{Allow: []policy.Rule{{Host: "https://x.test/"}}},
	})
	if err == nil || !strings.Contains(err.Error(), "https://x.test/") {
		t.Errorf("a rule that is a URL: %v", err)
	}
	_, err = gondolin.Start(t.Context(), gondolin.Config{Host: gondolin.Host{Dir: t.TempDir()}})
	if err == nil || !strings.Contains(err.Error(), "gondolin image build") {
		t.Errorf("no image: %v", err)
	}
}

func TestStartCancelled(t *testing.T) {
	vmtest.Needs(t)
	testenv.CheckLeaks(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := gondolin.Start(ctx, gondolin.Config{Cold: true}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// A guest that never becomes ready ends with what its console said.
func TestStartTimeout(t *testing.T) {
	vmtest.Needs(t)
	testenv.CheckLeaks(t)
	agent := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(agent, []byte("#!/no/such/interpreter\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := gondolin.Start(t.Context(), gondolin.Config{
		Host: gondolin.Host{Agent: agent, Accelerator: "tcg"}, StartTimeout: time.Minute,
	})
	if err == nil || !strings.Contains(err.Error(), "Kernel panic") {
		t.Errorf("a guest whose init cannot run: %v", err)
	}
}

func TestCloseFailsWhatIsUnderWay(t *testing.T) {
	vm := vmtest.Start(t, gondolin.Config{})
	c := vm.Command(t.Context(), "sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	if err := vm.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, gondolin.ErrClosed) {
		t.Errorf("a command under way: %v", err)
	}
	<-vm.Done()
	if err := vm.Err(); !errors.Is(err, gondolin.ErrClosed) {
		t.Error(err)
	}
	if err := vm.Command(t.Context(), "true").Run(); !errors.Is(err, gondolin.ErrClosed) {
		t.Errorf("a command afterwards: %v", err)
	}
	if err := vm.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

// A guest that ends by itself fails everything with the reason.
func TestGuestEnds(t *testing.T) {
	vm := vmtest.Start(t, gondolin.Config{})
	err := vm.Command(t.Context(), "sh", "-c", "echo b > /proc/sysrq-trigger; sleep 1000").Run()
	if err == nil || !strings.Contains(err.Error(), "VM ended") {
		t.Errorf("%v", err)
	}
	<-vm.Done()
	if vm.Err() == nil || errors.Is(vm.Err(), gondolin.ErrClosed) {
		t.Errorf("%v", vm.Err())
	}
}

func TestGuestIsOrdinary(t *testing.T) {
	vm := vmtest.Start(t, gondolin.Config{Hostname: "box", CPUs: 2})
	for script, want := range map[string]string{
		"hostname":               "box",
		"nproc":                  "2",
		"stat -c %a /tmp":        "1777",
		"stat -c %F /dev/null":   "character special file",
		"readlink /dev/fd":       "/proc/self/fd",
		"stat -f -c %T /dev/shm": "tmpfs",
		"python3 -c 'import os; print(os.getpid() > 1)'": "True",
		"ulimit -Sn":                        "1024",
		"touch /usr/bin/x && echo writable": "writable",
		"getent hosts box | head -c9":       "127.0.0.1",
		"cat /proc/1/comm":                  "init",
	} {
		if got := strings.TrimSpace(vmtest.Output(t, vm, script)); got != want {
			t.Errorf("%s: %q, not %q", script, got, want)
		}
	}
	date := strings.TrimSpace(vmtest.Output(t, vm, "date +%s"))
	guest, err := time.ParseDuration(date + "s")
	if off := time.Since(time.Unix(0, 0).Add(guest)); err != nil || off > 30*time.Second || off < -5*time.Second {
		t.Errorf("the guest's clock is off by %v", off)
	}
}
