package gondolin_test

import (
	"path/filepath"
	"strings"
	"testing"

	"gondolin"
	"gondolin/internal/testenv"
	"gondolin/internal/vmtest"
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

func TestCheckpointSmoke(t *testing.T) {
	vm := vmtest.Start(t, gondolin.Config{Memory: 256 << 20})
	testenv.CheckLeaks(t)
	vmtest.Output(t, vm, "echo mark > /tmp/mark")
	dir := filepath.Join(t.TempDir(), "ckpt")
	info, err := vm.Checkpoint(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", info)
	if out := vmtest.Output(t, vm, "cat /tmp/mark"); out != "mark\n" {
		t.Errorf("%q", out)
	}
	copied := restore(t, dir, gondolin.Config{})
	t.Logf("%v", copied.Timings())
	if out := vmtest.Output(t, copied, "cat /tmp/mark; hostname"); !strings.HasPrefix(out, "mark\n") {
		t.Errorf("%q", out)
	}
}
