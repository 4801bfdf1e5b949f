// Package vmtest starts real VMs, and servers for them to talk to, for tests.
package vmtest

import (
	"io"
	"log/slog"
	"os"
	"runtime"
	"testing"

	"gondolin"
	"gondolin/internal/image"
	"gondolin/internal/paths"
	"gondolin/internal/testenv"
)

// Needs skips the test where no VM can run: without QEMU or the default image.
func Needs(t testing.TB) {
	t.Helper()
	testenv.NeedsQEMU(t)
	testenv.NeedsImage(t, func() error {
		store, err := image.Open(Images(t))
		if err != nil {
			return err
		}
		_, err = store.Resolve(t.Context(), gondolin.DefaultImage)
		return err
	})
}

// Images returns the directory of the image store in use.
func Images(t testing.TB) string {
	t.Helper()
	dirs, err := paths.FromEnv(os.Getenv, runtime.GOOS)
	if err != nil {
		t.Fatal(err)
	}
	return dirs.Images()
}

// Start starts a VM that is closed at the end of the test, and checks that
// nothing of it is left then.
func Start(t testing.TB, config gondolin.Config) *gondolin.VM {
	t.Helper()
	Needs(t)
	testenv.CheckLeaks(t)
	if config.Log == nil {
		config.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if config.Memory == 0 {
		config.Memory = 512 << 20
	}
	vm, err := gondolin.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vm.Close(); err != nil {
			t.Error(err)
		}
		for _, fsys := range config.Mounts {
			if c, ok := fsys.(io.Closer); ok {
				c.Close()
			}
		}
	})
	return vm
}

// Output runs a shell script in vm and returns what it wrote to stdout. A script
// that fails fails the test.
func Output(t testing.TB, vm *gondolin.VM, script string) string {
	t.Helper()
	out, err := vm.Shell(t.Context(), script).Output()
	if err != nil {
		t.Errorf("%s: %v%s", script, err, stderr(err))
	}
	return string(out)
}

func stderr(err error) string {
	if exit, ok := err.(*gondolin.ExitError); ok && len(exit.Stderr) > 0 { //nolint:errorlint // Output returns it bare
		return ": " + string(exit.Stderr)
	}
	return ""
}
