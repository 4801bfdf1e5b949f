package gondolin_test

import (
	"runtime"
	"strings"
	"testing"

	"gondolin"
	"gondolin/internal/vmtest"
	"gondolin/vfs"
)

// hijack is a guest program that, as root, takes the agent's own descriptors of
// a virtio-serial port out of it (pidfd_getfd(2)), so that it can write there
// what the agent never would.
const hijack = `
import ctypes, os, sys, random
libc = ctypes.CDLL(None, use_errno=True)
pidfd = libc.syscall(434, 1, 0)  # pidfd_open, the same number on every architecture
assert pidfd >= 0, os.strerror(ctypes.get_errno())
def port(name):
    for p in os.listdir("/sys/class/virtio-ports"):
        if open("/sys/class/virtio-ports/%s/name" % p).read().strip() == name:
            for fd in os.listdir("/proc/1/fd"):
                try:
                    link = os.readlink("/proc/1/fd/" + fd)
                except OSError:
                    continue
                if link == "/dev/" + p:
                    mine = libc.syscall(438, pidfd, int(fd), 0)  # pidfd_getfd
                    assert mine >= 0, os.strerror(ctypes.get_errno())
                    return mine
    raise SystemExit("no port " + name)
fd = port(sys.argv[1])
os.set_blocking(fd, True)
print("hijacked", flush=True)
`

// What hostile code can do with the agent's ports in its hands, and how it must end:
// the VM may be lost, the host goes on and stays small.
func TestHostileGuest(t *testing.T) {
	garbage := `random.seed(int(sys.argv[2]))
for _ in range(200):
    os.write(fd, random.randbytes(65536))
`
	for name, test := range map[string]struct{ port, body string }{
		"garbage on ctl": {"ctl", garbage},
		"garbage on fs":  {"fs", garbage},
		// A multiplexer frame that asks for a pong, over and over, which is never read.
		"pings on ctl": {"ctl", `while True: os.write(fd, bytes([0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7]) * 1000)`},
		// Windows opened wide, for every stream there could be.
		"windows on ctl": {"ctl", `
for i in range(1, 200000, 2):
    os.write(fd, bytes([0, 1, 0, 0]) + i.to_bytes(4, "big") + (1 << 18).to_bytes(4, "big"))
os.write(fd, b"\xff" * 100)
`},
		// The largest FUSE request there is, half of it, and then no more.
		"half a request on fs": {"fs", `
os.write(fd, (1 << 20).to_bytes(4, "little") + (16).to_bytes(4, "little") + bytes(500000))
os.write(fd, b"\xff" * 1000000)
`},
		// Requests by the thousand, whose answers are never read.
		"flood on fs": {"fs", `
head = lambda op, n, unique: n.to_bytes(4, "little") + op.to_bytes(4, "little") + unique.to_bytes(8, "little") + (1).to_bytes(8, "little") + bytes(16)
import threading, _thread
threading.Timer(3, lambda: os._exit(0)).start()
unique = 2
while True:
    os.write(fd, b"".join(head(3, 56, unique + 2 * i) + bytes(16) for i in range(1000)))
    unique += 2000
`},
	} {
		t.Run(name, func(t *testing.T) { beHostile(t, test.port, test.body) })
	}
}

func beHostile(t *testing.T, port, body string) {
	vm := vmtest.Start(t, gondolin.Config{CPUs: 1, Mounts: map[string]vfs.FS{"/work": vfs.Memory()}})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c := vm.Command(t.Context(), "python3", "-c", hijack+body, port, "1")
	var out strings.Builder
	c.Stdout = &out
	err := c.Run() // however it ends
	if !strings.Contains(out.String(), "hijacked") {
		t.Fatalf("the attack did not begin: %v %s", err, out.String())
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > hostileBound {
		t.Errorf("the host holds %d MiB more", grown>>20)
	}
	if n := runtime.NumGoroutine(); n > 2000 {
		t.Errorf("%d goroutines on the host", n)
	}
}

// hostileBound is far above what a VM holds and far below what an attack that
// works would make it hold.
const hostileBound = 100 << 20
