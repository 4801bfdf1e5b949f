package gondolin_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gondolin"
	"gondolin/internal/vmtest"
	"gondolin/policy"
	"gondolin/vfs"
)

// restore restores a VM that is closed at the end of the test.
func restore(t *testing.T, dir string, config gondolin.Config) *gondolin.VM {
	t.Helper()
	vm, err := gondolin.Restore(t.Context(), dir, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vm.Close(); err != nil {
			t.Error(err)
		}
	})
	return vm
}

// worker is a shell with a variable and a working directory of its own, on a mount, where it also
// has a file open. It counts in memory, in the background, and answers questions.
const worker = `
cd /work/deep; secret=from-memory; exec 5<>open; read -r -u5 first
mkfifo /dev/shm/ask /dev/shm/answer
(while :; do n=$((n+1)); echo $n > /dev/shm/count.new; mv /dev/shm/count.new /dev/shm/count; sleep 0.05; done) &
while read -r question < /dev/shm/ask; do eval "$question" > /dev/shm/answer 2>&1; done`

// startWorker starts the worker and returns when it answers.
func startWorker(t *testing.T, vm *gondolin.VM) {
	t.Helper()
	c := vm.Command(t.Context(), "/bin/bash", "-c", worker)
	c.Stdout = new(bytes.Buffer)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Wait() }) // the test's context has ended it
	vmtest.Output(t, vm, "until [ -p /dev/shm/answer ] && [ -s /dev/shm/count ]; do sleep 0.05; done")
}

// ask has the worker evaluate a question.
func ask(t *testing.T, vm *gondolin.VM, question string) string {
	t.Helper()
	return vmtest.Output(t, vm, fmt.Sprintf("echo '%s' > /dev/shm/ask; timeout 20 cat /dev/shm/answer", question))
}

func count(t *testing.T, vm *gondolin.VM) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(vmtest.Output(t, vm, "cat /dev/shm/count"), &n); err != nil {
		t.Error(err)
	}
	return n
}

// checkWorker checks that the worker lives on as it was.
func checkWorker(t *testing.T, vm *gondolin.VM) {
	t.Helper()
	if out := ask(t, vm, "echo $secret $first; pwd; read -r -u5 next; echo $next"); out != "from-memory one\n/work/deep\ntwo\n" {
		t.Errorf("the worker says %q", out)
	}
	if out := ask(t, vm, "echo three >&5; ls"); out != "open\n" {
		t.Errorf("the worker sees %q", out)
	}
	before := count(t, vm)
	vmtest.Output(t, vm, fmt.Sprintf("for i in $(seq 100); do [ $(cat /dev/shm/count) -gt %d ] && exit; sleep 0.1; done; exit 1", before))
}

// A VM goes on in its copies: processes with what they hold in memory, files that are
// open on mounts, and the original too; but each copy is a machine of its own.
func TestCheckpointAndRestore(t *testing.T) {
	const value = "a-secret-value-that-must-not-be-saved"
	host := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(host, "deep"), 0o755))
	must(t, os.WriteFile(filepath.Join(host, "deep", "open"), []byte("one\ntwo\n"), 0o644))
	config := gondolin.Config{
		Memory: 256 << 20, Hostname: "original", Mounts: map[string]vfs.FS{"/work": vfs.Dir(host)},
		Network: policy.Network{
			Allow:   []policy.Rule{{Host: "api.example.com"}},
			Secrets: map[string]policy.Secret{"TOKEN": {Hosts: []string{"api.example.com"}, Value: value}},
		},
	}
	vm := vmtest.Start(t, config)
	startWorker(t, vm)
	placeholder := ask(t, vm, "echo $TOKEN")
	dir := filepath.Join(t.TempDir(), "ckpt")
	info, err := vm.Checkpoint(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", info)
	if info.Pause <= 0 || info.Held < info.Pause || info.Size < 1<<20 {
		t.Errorf("%+v", info)
	}
	noneHolds(t, dir, value)
	copies := make([]*gondolin.VM, 2)
	for i := range copies {
		config.Hostname = fmt.Sprint("copy", i)
		config.Memory = 0
		copies[i] = restore(t, dir, config)
	}
	seen := make(map[string]bool)
	for i, c := range append(copies, vm) {
		must(t, os.WriteFile(filepath.Join(host, "deep", "open"), []byte("one\ntwo\n"), 0o644))
		checkWorker(t, c)
		if b, err := os.ReadFile(filepath.Join(host, "deep", "open")); err != nil || string(b) != "one\ntwo\nthree\n" {
			t.Errorf("VM %d wrote %q, %v", i, b, err)
		}
		for _, script := range []string{"head -c 32 /dev/urandom | sha256sum", "cat /etc/machine-id", "hostname"} {
			out := vmtest.Output(t, c, script)
			if seen[out] {
				t.Errorf("%s: two have %q", script, out)
			}
			seen[out] = true
		}
		if out := vmtest.Output(t, c, "echo $TOKEN"); out != placeholder {
			t.Errorf("VM %d has placeholder %q, not %q", i, out, placeholder)
		}
		checkClock(t, c)
	}
}

// noneHolds checks that no file of dir holds text.
func noneHolds(t *testing.T, dir, text string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		if bytes.Contains(b, []byte(text)) {
			t.Errorf("%s holds %q", e.Name(), text)
		}
	}
}

// Who restores says so when the copy's world is another; what cannot be loaded is refused.
func TestRestoreRefuses(t *testing.T) {
	vm := vmtest.Start(t, gondolin.Config{Memory: 256 << 20, Mounts: map[string]vfs.FS{"/work": vfs.Memory()}})
	parent := t.TempDir()
	dir := filepath.Join(parent, "ckpt")
	if _, err := vm.Checkpoint(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := vm.Checkpoint(t.Context(), dir); !errors.Is(err, gondolin.ErrCheckpointExists) {
		t.Errorf("saved over another: %v", err)
	}
	work := func() map[string]vfs.FS { return map[string]vfs.FS{"/work": vfs.Memory()} }
	refused := func(name, dir, want string, config gondolin.Config) {
		t.Helper()
		vm, err := gondolin.Restore(t.Context(), dir, config)
		if err == nil {
			vm.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused("no mount", dir, "mount at /work", gondolin.Config{})
	refused("another kind", dir, "OtherMounts", gondolin.Config{Mounts: map[string]vfs.FS{"/work": vfs.ReadOnly(vfs.Memory())}})
	refused("a new mount", dir, "no new ones", gondolin.Config{Mounts: map[string]vfs.FS{"/work": vfs.Memory(), "/more": vfs.Memory()}})
	refused("network", dir, "OtherNetwork", gondolin.Config{Mounts: work(), Network: policy.Network{Allow: []policy.Rule{{Host: "x.example"}}}})
	refused("memory", dir, "memory of 256 MiB", gondolin.Config{Mounts: work(), Memory: 512 << 20})
	refused("nothing there", filepath.Join(parent, "other"), "cannot use the checkpoint", gondolin.Config{})
	for field, change := range map[string][2]string{
		"QEMU":        {`"qemu": "`, `"qemu": "9.`},
		"host CPU":    {`"host_cpu": "`, `"host_cpu": "another `},
		"the guest a": {`"agent": "`, `"agent": "x`},
		"image":       {`"image_digest": "sha256:`, `"image_digest": "sha256:0`},
		"arch":        {`"arch": "`, `"arch": "x`},
	} {
		old, err := os.ReadFile(filepath.Join(dir, "checkpoint.json"))
		must(t, err)
		changed := strings.Replace(string(old), change[0], change[1], 1)
		if changed == string(old) {
			t.Fatalf("%s is not described", field)
		}
		must(t, os.WriteFile(filepath.Join(dir, "checkpoint.json"), []byte(changed), 0o600))
		refused(field, dir, field, gondolin.Config{Mounts: work(), Image: gondolin.DefaultImage})
		must(t, os.WriteFile(filepath.Join(dir, "checkpoint.json"), old, 0o600))
	}
	other := restore(t, dir, gondolin.Config{
		Accept:  gondolin.OtherMounts | gondolin.OtherNetwork,
		Network: policy.Network{Allow: []policy.Rule{{Host: "x.example"}}},
	})
	if out := vmtest.Output(t, other, "ls /work | wc -l"); out != "0\n" {
		t.Errorf("%q", out)
	}
}

// A child waiting for data on a connection of its parent's is told that it is gone.
func TestFork(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	api := vmtest.NewAPI(t, slowHandler(asked, release), "api.example.com")
	defer close(release)
	vm := vmtest.Start(t, gondolin.Config{
		Memory: 256 << 20, Upstream: api.Upstream(),
		Network: policy.Network{Allow: []policy.Rule{{Host: "api.example.com"}}, AllowInternal: []string{"api.example.com"}},
	})
	waiting := vm.Shell(t.Context(), "echo mark > /dev/shm/mark; curl -sS -m 100 https://api.example.com/slow > /dev/shm/out 2>&1; echo $? > /dev/shm/code")
	must(t, waiting.Start())
	<-asked
	children, err := vm.Fork(t.Context(), 2, func(i int, c *gondolin.Config) { c.Hostname = fmt.Sprint("child", i) })
	if err != nil {
		t.Fatal(err)
	}
	for i, child := range children {
		out := vmtest.Output(t, child, "for i in $(seq 150); do [ -s /dev/shm/code ] && break; sleep 0.1; done; cat /dev/shm/code /dev/shm/mark; hostname")
		if out != fmt.Sprintf("56\nmark\nchild%d\n", i) { // CURLE_RECV_ERROR
			t.Errorf("child %d: %q: %s", i, out, vmtest.Output(t, child, "cat /dev/shm/out"))
		}
		if out := vmtest.Output(t, child, "curl -sS https://api.example.com/fast"); out != "fast\n" {
			t.Errorf("child %d: %q", i, out)
		}
		if err := child.Close(); err != nil {
			t.Error(err)
		}
	}
	release <- struct{}{}
	if err := waiting.Wait(); err != nil {
		t.Error(err)
	}
	if out := vmtest.Output(t, vm, "cat /dev/shm/code /dev/shm/out"); out != "0\nslow\n" {
		t.Errorf("the parent's connection: %q", out)
	}
	if _, err := vm.Fork(t.Context(), 0, nil); err == nil {
		t.Error("forked no VM")
	}
}

// slowHandler says when it is asked for /slow, and answers when it is released.
func slowHandler(asked chan<- struct{}, release <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(asked)
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		fmt.Fprintln(w, strings.TrimPrefix(r.URL.Path, "/"))
	})
}
