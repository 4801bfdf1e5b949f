package fsserver_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gondolin/internal/fsserver"
	"gondolin/internal/guest/fusepump"
	"gondolin/internal/testenv"
	"gondolin/vfs"
	"gondolin/vfs/vfstest"
)

// childDir and childMode turn the test binary into the process that uses the mount: a process that serves a mount
// must not also wait for it.
const (
	childDir  = "GONDOLIN_FSSERVER_CHILD_DIR"
	childMode = "GONDOLIN_FSSERVER_CHILD_MODE"
)

// TestChild is the body of the child process; in the parent there is nothing for it to test.
func TestChild(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		return
	}
	switch os.Getenv(childMode) {
	case "memory":
		vfstest.RunPath(t, dir, vfstest.Options{NoXattrs: true, NoTmpFile: true})
	case "dir":
		vfstest.RunPath(t, dir, vfstest.Options{FixedOwner: true, NoSpecialBits: true, NoXattrs: true, NoTmpFile: true})
	case "readonly":
		vfstest.RunPathReadOnly(t, dir)
	case "extra":
		testKernelExtras(t, dir)
	default:
		t.Fatal("unknown mode")
	}
}

// needsFUSE skips where a FUSE file system cannot be mounted.
func needsFUSE(t *testing.T) {
	t.Helper()
	testenv.NeedsRoot(t)
	testenv.NeedsFUSE(t)
}

// kernel is a real FUSE mount served by a Server through a pump.
type kernel struct {
	dir    string
	server *fsserver.Server
	served chan error
	pumped chan error
}

func mountKernel(t *testing.T, mounts ...vfs.FS) *kernel {
	t.Helper()
	needsFUSE(t)
	testenv.CheckLeaks(t)
	t.Cleanup(func() {
		for _, m := range mounts {
			if c, ok := m.(io.Closer); ok {
				c.Close()
			}
		}
	})
	k := &kernel{
		dir: t.TempDir(), server: fsserver.New(fsserver.Config{Mounts: mounts}),
		served: make(chan error, 1), pumped: make(chan error, 1),
	}
	if err := os.Chmod(filepath.Dir(k.dir), 0o755); err != nil { // other users need the way to the mount
		t.Fatal(err)
	}
	dev, err := fusepump.Mount(k.dir)
	if err != nil {
		t.Fatal(err)
	}
	guest, host := socketpair(t)
	go func() { k.served <- k.server.Run(t.Context(), host) }()
	go func() { k.pumped <- fusepump.Run(dev, guest, new(fusepump.Gate)); guest.Close() }()
	t.Cleanup(func() {
		if err := unix.Unmount(k.dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
		for name, ch := range map[string]chan error{"pump": k.pumped, "server": k.served} {
			select {
			case err := <-ch:
				if err != nil && t.Context().Err() == nil {
					t.Errorf("%s ended with: %v", name, err)
				}
			case <-time.After(20 * time.Second):
				dev.Close() // aborts the connection
				t.Errorf("%s does not end", name)
			}
		}
		dev.Close()
	})
	return k
}

func socketpair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := [2]net.Conn{}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		conns[i], err = net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	return conns[0], conns[1]
}

// child runs the suite in another process.
func (k *kernel) child(t *testing.T, sub, mode string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestChild$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), childDir+"="+filepath.Join(k.dir, sub), childMode+"="+mode)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child: %v\n%s", err, failures(out))
	}
	if !bytes.Contains(out, []byte("--- PASS: TestChild/")) || bytes.Contains(out, []byte("--- SKIP")) {
		t.Fatalf("the child skipped tests:\n%s", out)
	}
}

// failures leaves the passed tests out of a verbose log.
func failures(out []byte) string {
	var keep []string
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "=== ") && !strings.Contains(line, "--- PASS") {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "")
}

func TestKernelMemory(t *testing.T) {
	mountKernel(t, vfs.Memory()).child(t, "0", "memory")
}

func TestKernelDir(t *testing.T) {
	mountKernel(t, vfs.Memory(), vfs.Dir(t.TempDir())).child(t, "1", "dir")
}

func TestKernelReadOnly(t *testing.T) {
	dir := t.TempDir()
	into := vfs.NewDir(vfs.DirConfig{Path: dir})
	vfstest.Populate(t, into)
	into.Close()
	k := mountKernel(t, vfs.FromFS(vfstest.Fixture()), vfs.ReadOnlyDir(dir))
	k.child(t, "0", "readonly")
	k.child(t, "1", "readonly")
}

func TestKernelExtras(t *testing.T) {
	k := mountKernel(t, vfs.Memory(), vfs.Memory())
	k.child(t, "", "extra")
	if s, ok := k.server.Settings(); !ok || s.MaxWrite != 1<<20 || s.Minor < 28 {
		t.Errorf("settings %+v, %v", s, ok)
	}
}

// testKernelExtras checks what only a mount with several providers shows.
func testKernelExtras(t *testing.T, root string) {
	t.Run("Root", func(t *testing.T) {
		list, err := os.ReadDir(root)
		if err != nil || len(list) != 2 || list[0].Name() != "0" || list[1].Name() != "1" {
			t.Fatalf("root lists %v, %v", list, err)
		}
		if err := os.Mkdir(root+"/2", 0o755); vfs.ErrnoOf(err) != vfs.EROFS {
			t.Errorf("mkdir in the root: %v", err)
		}
	})
	t.Run("CrossMount", func(t *testing.T) {
		write(t, root+"/0/f", "x")
		if err := os.Rename(root+"/0/f", root+"/1/f"); vfs.ErrnoOf(err) != vfs.EXDEV {
			t.Errorf("rename across mounts: %v", err)
		}
		if err := os.Link(root+"/0/f", root+"/1/f"); vfs.ErrnoOf(err) != vfs.EXDEV {
			t.Errorf("link across mounts: %v", err)
		}
		write(t, root+"/1/f", "x")
		var a, b unix.Stat_t
		if unix.Stat(root+"/0/f", &a) != nil || unix.Stat(root+"/1/f", &b) != nil || a.Ino == b.Ino {
			t.Errorf("two files have inode number %d", a.Ino)
		}
	})
	t.Run("Owner", func(t *testing.T) {
		if err := os.Chmod(root+"/0", 0o777); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "echo mine > "+root+"/0/user && cat "+root+"/0/user")
		cmd.SysProcAttr = credential(1234, 5678)
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "mine\n" {
			t.Fatalf("another user: %q %v", out, err)
		}
		var st unix.Stat_t
		if err := unix.Stat(root+"/0/user", &st); err != nil || st.Uid != 1234 || st.Gid != 5678 {
			t.Errorf("owner %d:%d, %v", st.Uid, st.Gid, err)
		}
	})
	t.Run("Special", func(t *testing.T) {
		if err := unix.Mknod(root+"/0/null", unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))); vfs.ErrnoOf(err) != vfs.EPERM {
			t.Errorf("making a device: %v", err)
		}
		if err := unix.Mknod(root+"/0/reg", unix.S_IFREG|0o640, 0); err != nil {
			t.Errorf("mknod: %v", err)
		}
	})
	t.Run("Mmap", func(t *testing.T) {
		write(t, root+"/0/map", strings.Repeat("a", 8192))
		f, err := os.OpenFile(root+"/0/map", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		m[5000] = 'Z'
		if err := unix.Msync(m, unix.MS_SYNC); err != nil {
			t.Fatal(err)
		}
		if err := unix.Munmap(m); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(root + "/0/map")
		if err != nil || b[5000] != 'Z' {
			t.Errorf("a shared mapping was not written back: %v", err)
		}
	})
	t.Run("Fallocate", func(t *testing.T) {
		f, err := os.Create(root + "/0/alloc")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.Fallocate(int(f.Fd()), 0, 0, 10000); err != nil {
			t.Errorf("fallocate: %v", err)
		}
		if st, err := f.Stat(); err != nil || st.Size() != 10000 {
			t.Errorf("size after fallocate: %v %v", st, err)
		}
		if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096); vfs.ErrnoOf(err) != vfs.EOPNOTSUPP {
			t.Errorf("collapsing a range: %v", err)
		}
	})
	t.Run("Quota", func(t *testing.T) {
		f, err := os.Create(root + "/1/big")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.Fallocate(int(f.Fd()), 0, 0, 2<<30); vfs.ErrnoOf(err) != vfs.ENOSPC {
			t.Errorf("2 GiB in 1 GiB: %v", err)
		}
	})
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestKernelHostGone checks that a lost host ends the pump, and the pump the server's goroutines.
func TestKernelHostGone(t *testing.T) {
	needsFUSE(t)
	testenv.CheckLeaks(t)
	dir := t.TempDir()
	dev, err := fusepump.Mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	defer unix.Unmount(dir, unix.MNT_DETACH)
	guest, host := socketpair(t)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- fsserver.New(fsserver.Config{Mounts: []vfs.FS{vfs.Memory()}}).Run(ctx, host) }()
	pumped := make(chan error, 1)
	go func() { pumped <- fusepump.Run(dev, guest, new(fusepump.Gate)) }()
	cancel()
	if err := <-served; err != context.Canceled { //nolint:errorlint // the exact cause
		t.Errorf("server: %v", err)
	}
	if err := <-pumped; err == nil { // which error depends on what the pump was doing
		t.Error("the pump did not notice")
	}
	guest.Close()
}
