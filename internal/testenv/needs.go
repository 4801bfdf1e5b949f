package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
)

// Reason names why a test cannot run here.
type Reason string

// The reasons tests may give.
const (
	ReasonRoot  Reason = "root"  // needs uid 0
	ReasonKVM   Reason = "kvm"   // needs a /dev/kvm that is known to boot a kernel
	ReasonMacOS Reason = "macos" // needs a Mac, or macOS cannot do it
	ReasonLinux Reason = "linux" // needs a Linux host
	ReasonQEMU  Reason = "qemu"  // needs qemu-system for this architecture
	ReasonFUSE  Reason = "fuse"  // needs /dev/fuse on the host
	ReasonImage Reason = "image" // needs the default guest image in the store
	ReasonTool  Reason = "tool"  // needs a program in PATH
	ReasonHeavy Reason = "heavy" // takes minutes or the network; run only when asked for
)

// mayAlwaysSkip lists the reasons that stay a skip under GONDOLIN_NO_SKIP=1: other hardware, another system, or a
// test that is not part of the ordinary run. Everything else can be installed, and `make deps` does.
var mayAlwaysSkip = []Reason{ReasonKVM, ReasonMacOS, ReasonLinux, ReasonHeavy}

// Skip ends the test because of reason: a skip, or a failure when skips are forbidden and reason is not exempt.
func Skip(tb testing.TB, reason Reason, format string, args ...any) {
	tb.Helper()
	text := fmt.Sprintf("[%s] %s", reason, fmt.Sprintf(format, args...))
	if skipFails(reason, os.Getenv("GONDOLIN_NO_SKIP")) {
		tb.Fatalf("%s (skips are failures because GONDOLIN_NO_SKIP is set)", text)
	}
	tb.Skip(text)
}

func skipFails(reason Reason, noSkip string) bool {
	return noSkip != "" && noSkip != "0" && !slices.Contains(mayAlwaysSkip, reason)
}

// NeedsRoot skips unless the test runs as uid 0.
func NeedsRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		Skip(tb, ReasonRoot, "needs root")
	}
}

// NeedsLinux skips on every other host.
func NeedsLinux(tb testing.TB) {
	tb.Helper()
	if runtime.GOOS != "linux" {
		Skip(tb, ReasonLinux, "needs a Linux host")
	}
}

// NeedsMacOS skips on every other host.
func NeedsMacOS(tb testing.TB) {
	tb.Helper()
	if runtime.GOOS != "darwin" {
		Skip(tb, ReasonMacOS, "needs macOS")
	}
}

// NeedsKVM skips unless GONDOLIN_TEST_KVM=1 says that KVM works on this host. That /dev/kvm opens proves nothing: on
// nested hosts QEMU may abort with it, or the kernel never comes up, so a person or CI has to vouch for it.
func NeedsKVM(tb testing.TB) {
	tb.Helper()
	if os.Getenv("GONDOLIN_TEST_KVM") != "1" {
		Skip(tb, ReasonKVM, "needs a working KVM; set GONDOLIN_TEST_KVM=1 where it is one")
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		Skip(tb, ReasonKVM, "%v", err)
	}
	f.Close()
}

// QEMUName is the name of the QEMU binary that runs guests of this host's architecture.
func QEMUName() string {
	if runtime.GOARCH == "arm64" {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

// NeedsQEMU skips without QEMU for this architecture and returns the path of its binary.
func NeedsQEMU(tb testing.TB) string {
	tb.Helper()
	path, err := exec.LookPath(QEMUName())
	if err != nil {
		Skip(tb, ReasonQEMU, "needs %s in PATH; run make deps", QEMUName())
	}
	return path
}

// NeedsTool skips without the named program and returns its path.
func NeedsTool(tb testing.TB, name string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Skip(tb, ReasonTool, "needs %s in PATH; run make deps", name)
	}
	return path
}

// NeedsFUSE skips unless /dev/fuse can be opened for reading and writing.
func NeedsFUSE(tb testing.TB) {
	tb.Helper()
	if runtime.GOOS != "linux" {
		Skip(tb, ReasonLinux, "needs Linux's /dev/fuse")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		Skip(tb, ReasonFUSE, "%v", err)
	}
	f.Close()
}

// NeedsImage skips unless resolve, which looks the default image up in the caller's store, succeeds. The store is the
// caller's business so that the store's own tests can use this package.
func NeedsImage(tb testing.TB, resolve func() error) {
	tb.Helper()
	if resolve == nil {
		tb.Fatal("NeedsImage: ", errors.New("no resolve function"))
	}
	if err := resolve(); err != nil {
		Skip(tb, ReasonImage, "needs the default image, run make image: %v", err)
	}
}

// NeedsEnv skips unless the environment variable is set to 1: the switch of tests that take minutes or need the
// network, and are not part of the ordinary run.
func NeedsEnv(tb testing.TB, name string) {
	tb.Helper()
	if os.Getenv(name) != "1" {
		Skip(tb, ReasonHeavy, "set %s=1 to run this", name)
	}
}
