package gondolin_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gondolin"
	"gondolin/internal/testenv"
	"gondolin/internal/vmtest"
	"gondolin/vfs"
)

// Clones of one template are different machines, before any command runs in them.
func TestClonesDiffer(t *testing.T) {
	vmtest.Needs(t)
	testenv.CheckLeaks(t)
	const n = 4
	vms := make([]*gondolin.VM, n)
	started := make(chan error, n)
	for i := range vms {
		go func() {
			var err error
			vms[i], err = gondolin.Start(t.Context(), gondolin.Config{
				Memory: 512 << 20, Hostname: fmt.Sprintf("clone%d", i), Env: map[string]string{"NUMBER": fmt.Sprint(i)},
				Mounts: map[string]vfs.FS{"/mine": vfs.Memory()},
			})
			started <- err
		}()
	}
	for range vms {
		if err := <-started; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() {
		for _, vm := range vms {
			if vm != nil {
				vm.Close()
			}
		}
	})
	if t.Failed() {
		return
	}
	seen := make(map[string]int)
	for i, vm := range vms {
		for name, script := range map[string]string{
			"urandom":      "head -c 32 /dev/urandom | sha256sum",
			"getrandom":    "python3 -c 'import os; print(os.getrandom(32).hex())'",
			"secrets":      "python3 -c 'import secrets; print(secrets.token_hex(32))'",
			"openssl":      "openssl rand -hex 32",
			"uuid":         "cat /proc/sys/kernel/random/uuid",
			"machine id":   "cat /etc/machine-id",
			"address keys": "python3 -c 'print(hash(\"x\"), id(object()))'",
		} {
			out := vmtest.Output(t, vm, script)
			if other, twice := seen[out]; twice {
				t.Errorf("%s: clones %d and %d have the same: %s", name, other, i, out)
			}
			seen[out] = i
		}
		if out := vmtest.Output(t, vm, "hostname; echo $NUMBER; touch /mine/x && ls /mine"); out != fmt.Sprintf("clone%d\n%d\nx\n", i, i) {
			t.Errorf("%q", out)
		}
		checkClock(t, vm)
	}
}

func checkClock(t *testing.T, vm *gondolin.VM) {
	t.Helper()
	var guest float64
	if _, err := fmt.Sscan(vmtest.Output(t, vm, "date +%s.%N"), &guest); err != nil {
		t.Fatal(err)
	}
	if off := float64(time.Now().UnixNano())/1e9 - guest; off > 3 || off < -3 {
		t.Errorf("the guest's clock is %.1f s off", off)
	}
}

// home makes a directory of its own for templates and the like, with the images
// of the one in use.
func home(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(vmtest.Images(t), filepath.Join(dir, "data", "images")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The first start makes the template, the second uses it, and a damaged one is
// made anew, with a line that says so.
func TestTemplateLife(t *testing.T) {
	vmtest.Needs(t)
	testenv.CheckLeaks(t)
	host := gondolin.Host{Dir: home(t), Accelerator: "tcg"}
	var log bytes.Buffer
	run := func(cold bool) {
		t.Helper()
		log.Reset()
		vm, err := gondolin.Start(t.Context(), gondolin.Config{
			Memory: 256 << 20, Host: host, Cold: cold, Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer vm.Close()
		if out := vmtest.Output(t, vm, "echo alive"); out != "alive\n" {
			t.Errorf("%q", out)
		}
	}
	list := func() []gondolin.Template {
		t.Helper()
		l, err := gondolin.Templates(host)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	run(true)
	if l := list(); len(l) != 0 {
		t.Errorf("a cold start made %v", l)
	}
	run(false)
	first := list()
	if len(first) != 1 || first[0].Size < 10<<20 || !strings.Contains(first[0].Shape, "256 MiB") {
		t.Fatalf("%+v", first)
	}
	run(false)
	if log.Len() > 0 {
		t.Errorf("a plain clone said %s", log.String())
	}
	state := filepath.Join(host.Dir, "cache", "templates", first[0].ID, "state")
	if err := os.WriteFile(state, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(false)
	if strings.Count(log.String(), "making the template anew") != 1 {
		t.Errorf("said %q", log.String())
	}
	again, err := gondolin.WarmTemplate(t.Context(), gondolin.Config{Memory: 256 << 20, Host: host})
	if err != nil || again.ID != first[0].ID || !again.Created.After(first[0].Created) {
		t.Errorf("%+v, %v", again, err)
	}
	// One that looks whole, and that QEMU does not take, is a boot and a line; and the
	// next start boots without trying.
	forge(t, filepath.Dir(state))
	run(false)
	if strings.Count(log.String(), "cannot use the template; booting") != 1 || len(list()) != 0 {
		t.Errorf("said %q, kept %v", log.String(), list())
	}
	run(false)
	if strings.Contains(log.String(), "WARN") || len(list()) != 0 {
		t.Errorf("said %q, kept %v", log.String(), list())
	}
	must(t, os.Remove(filepath.Join(host.Dir, "cache", "templates", again.ID+".failed")))
	run(false)
	if _, err := gondolin.RemoveTemplate(t.Context(), host, again.ID[:12]); err != nil || len(list()) != 0 {
		t.Errorf("%v, %v left", err, list())
	}
}

// forge replaces a template's device state and has the manifest vouch for it.
func forge(t *testing.T, dir string) {
	t.Helper()
	old, err := os.ReadFile(filepath.Join(dir, "state"))
	must(t, err)
	manifest, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	must(t, err)
	state := []byte("no state of QEMU's")
	must(t, os.WriteFile(filepath.Join(dir, "state"), state, 0o600))
	sum := func(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }
	forged := strings.ReplaceAll(string(manifest), sum(old), sum(state))
	must(t, os.WriteFile(filepath.Join(dir, "manifest.json"), []byte(forged), 0o600))
}

// A clone cannot change the template it came from.
func TestClonesAreApart(t *testing.T) {
	config := gondolin.Config{Hostname: "first"}
	vm := vmtest.Start(t, config)
	vmtest.Output(t, vm, "echo mark > /etc/mark; mkdir /mark")
	other := vmtest.Start(t, gondolin.Config{Hostname: "second"})
	if out := vmtest.Output(t, other, "ls -d /etc/mark /mark 2>&1 | grep -c 'No such'; hostname"); out != "2\nsecond\n" {
		t.Errorf("%q", out)
	}
}
