package gondolin_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"gondolin"
	"gondolin/internal/vmtest"
	"gondolin/vfs"
	"gondolin/vfs/vfstest"
)

// TestFilesConformance runs the providers' conformance suite inside a guest,
// through its kernel, for every provider.
func TestFilesConformance(t *testing.T) {
	vmtest.Needs(t)
	tools := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", filepath.Join(tools, "vfstest"), "./vfs/vfstest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	readOnly := t.TempDir()
	vfstest.Populate(t, vfs.Dir(readOnly))
	memory := vfs.Memory()
	vfstest.Populate(t, memory)
	vm := vmtest.Start(t, gondolin.Config{Mounts: map[string]vfs.FS{
		"/tools":     vfs.ReadOnlyDir(tools),
		"/memory":    vfs.Memory(),
		"/dir":       vfs.Dir(t.TempDir()),
		"/ro/dir":    vfs.ReadOnlyDir(readOnly),
		"/ro/memory": vfs.ReadOnly(memory),
		"/ro/fs":     vfs.FromFS(vfstest.Fixture()),
	}})
	for dir, mode := range map[string]string{
		"/memory": "memory", "/dir": "dir", "/ro/dir": "readonly", "/ro/memory": "readonly", "/ro/fs": "readonly",
	} {
		t.Run(strings.ReplaceAll(strings.Trim(dir, "/"), "/", "-"), func(t *testing.T) {
			c := vm.Command(t.Context(), "/tools/vfstest", "-test.run", "^TestPath$", "-test.v")
			c.Env = []string{"GONDOLIN_VFSTEST_DIR=" + dir, "GONDOLIN_VFSTEST_MODE=" + mode, "GONDOLIN_VFSTEST_MANY=1000"}
			out, err := c.CombinedOutput()
			if passed := strings.Count(string(out), "    --- PASS"); err != nil || passed < 3 {
				t.Errorf("%v, %d passed\n%s", err, passed, out)
			}
		})
	}
}

func TestFiles(t *testing.T) {
	host := t.TempDir()
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("host only"), 0o600))
	must(t, os.WriteFile(filepath.Join(host, "hello"), []byte("from the host\n"), 0o644))
	must(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(host, "escape")))
	must(t, os.Symlink("/etc/hostname", filepath.Join(host, "absolute")))
	must(t, os.Mkdir(filepath.Join(host, "under"), 0o755))
	memory := vfs.Memory()
	vm := vmtest.Start(t, gondolin.Config{Hostname: "box", Mounts: map[string]vfs.FS{
		"/work":               vfs.Dir(host),
		"/work/under":         vfs.Memory(), // a mount in a mount
		"/ro":                 vfs.ReadOnlyDir(host),
		"/":                   memory,
		"/a path, with=odd é": vfs.FromFS(fstest.MapFS{"f": {Data: []byte("static")}}),
	}})
	f := &filesTest{vm: vm, host: host}
	t.Run("both ways", f.bothWays)
	t.Run("read-only", f.readOnly)
	t.Run("links do not escape", f.links)
	t.Run("metadata", f.metadata)
	t.Run("places", f.places)
	t.Run("git", f.git)
	t.Run("other users", f.users)
	t.Run("many at once", f.parallel)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type filesTest struct {
	vm   *gondolin.VM
	host string
}

func (f *filesTest) bothWays(t *testing.T) {
	if out := vmtest.Output(t, f.vm, "cat /work/hello; echo from the guest > /work/new; mkdir -p /work/d/e; mv /work/new /work/d/e/moved"); out != "from the host\n" {
		t.Errorf("%q", out)
	}
	if b, err := os.ReadFile(filepath.Join(f.host, "d/e/moved")); string(b) != "from the guest\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	must(t, os.WriteFile(filepath.Join(f.host, "later"), []byte("later"), 0o644))
	if out := vmtest.Output(t, f.vm, "cat /work/later"); out != "later" {
		t.Errorf("%q", out)
	}
}

func (f *filesTest) readOnly(t *testing.T) {
	out := vmtest.Output(t, f.vm, `cat /ro/hello; cd /ro; for c in 'echo x > new' 'echo x > hello' 'rm hello' 'mkdir d2' 'chmod 600 hello' 'mv hello x' 'ln hello y'; do sh -c "$c" 2>&1 | grep -o 'Read-only file system' || echo "allowed: $c"; done`)
	if strings.Count(out, "Read-only file system") != 7 || strings.Contains(out, "allowed") {
		t.Errorf("%q", out)
	}
}

// The guest resolves links itself, so an absolute one leads into the guest, and
// none leads out of the directory on the host.
func (f *filesTest) links(t *testing.T) {
	out := vmtest.Output(t, f.vm, `cat /work/escape 2>&1 | grep -c "No such file"; cat /work/absolute; readlink /work/absolute; ls /work/../../../../../../tmp | wc -l`)
	if out != "1\nbox\n/etc/hostname\n0\n" {
		t.Errorf("%q", out)
	}
}

func (f *filesTest) metadata(t *testing.T) {
	for _, dir := range []string{"/work", "/data"} {
		out := vmtest.Output(t, f.vm, `cd `+dir+` && echo '#!/bin/sh
echo ran' > script && chmod 750 script && ./script && touch -d '2001-02-03 04:05:06.123456789 UTC' script && stat -c '%a %Y %y' script &&
			truncate -s 1T sparse && stat -c %s sparse && rm sparse && ln script hard && stat -c %h script && ln -s nowhere dangling && readlink dangling && rm script hard dangling`)
		want := "ran\n750 981173106 2001-02-03 04:05:06.123456789 +0000\n1099511627776\n2\nnowhere\n"
		if out != want {
			t.Errorf("%s: %q", dir, out)
		}
	}
}

func (f *filesTest) places(t *testing.T) {
	out := vmtest.Output(t, f.vm, `cat '/a path, with=odd é/f'; echo; touch /work/under/x; ls /run/gondolin; grep -c fuse.gondolin /proc/mounts`)
	if out != "static\nca.crt\nfiles\n5\n" {
		t.Errorf("%q", out)
	}
	if _, err := os.Stat(filepath.Join(f.host, "under/x")); err == nil {
		t.Error("what was written to the inner mount came to the outer one")
	}
}

func (f *filesTest) git(t *testing.T) {
	out := vmtest.Output(t, f.vm, `cd /work && git init -q repo && cd repo && git config user.name a && git config user.email a@b && for i in $(seq 50); do echo $i > f$i; done && git add . && git commit -qm first && git status --short && git clone -q . ../clone && ls ../clone | wc -l && git fsck`)
	if strings.TrimSpace(out) != "50" {
		t.Errorf("%q", out)
	}
}

func (f *filesTest) users(t *testing.T) {
	c := f.vm.Command(t.Context(), "sh", "-c", "cat /work/hello; touch /work/mine 2>&1 | grep -c denied; echo x > /data/theirs")
	c.User = "nobody"
	must(t, f.vm.Command(t.Context(), "chmod", "1777", "/data").Run())
	if out, err := c.Output(); string(out) != "from the host\n1\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	if out := vmtest.Output(t, f.vm, "stat -c %U /data/theirs"); out != "nobody\n" {
		t.Errorf("%q", out)
	}
}

func (f *filesTest) parallel(t *testing.T) {
	errs := make(chan error, 8)
	for i := range cap(errs) {
		go func() { errs <- writeAndRead(t.Context(), f.vm, i) }()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func writeAndRead(ctx context.Context, vm *gondolin.VM, i int) error {
	script := fmt.Sprintf("cd /work && head -c 3000000 /dev/urandom > p%d && cp p%d /data/p%d && cmp p%d /data/p%d", i, i, i, i, i)
	if out, err := vm.Shell(ctx, script).CombinedOutput(); err != nil {
		return fmt.Errorf("%d: %w: %s", i, err, out)
	}
	return nil
}
