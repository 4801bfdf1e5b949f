package gondolin_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gondolin"
	"gondolin/internal/testenv"
	"gondolin/internal/vmtest"
)

// A disk that is full in the middle costs the checkpoint, not the VM.
func TestCheckpointFullDisk(t *testing.T) {
	testenv.NeedsRoot(t)
	vm := vmtest.Start(t, gondolin.Config{Memory: 256 << 20})
	for size, want := range map[string]string{"8m": "are the least that is needed", "100m": "no space is left"} {
		disk := t.TempDir()
		must(t, unix.Mount("tmpfs", disk, "tmpfs", 0, "size="+size))
		if size == "100m" { // what the guest uses does not fit
			vmtest.Output(t, vm, "head -c 60000000 /dev/urandom > /dev/shm/fill")
		}
		_, err := vm.Checkpoint(t.Context(), filepath.Join(disk, "ckpt"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", size, err)
		}
		if left, err := os.ReadDir(disk); err != nil || len(left) > 0 {
			t.Errorf("%s: %v, %v", size, left, err)
		}
		if out := vmtest.Output(t, vm, "echo alive"); out != "alive\n" {
			t.Errorf("%q", out)
		}
		must(t, unix.Unmount(disk, unix.MNT_DETACH))
	}
	if _, err := vm.Checkpoint(t.Context(), filepath.Join(t.TempDir(), "ckpt")); err != nil {
		t.Error(err)
	}
}
