package vfstest_test

import (
	"os"
	"strconv"
	"testing"

	"gondolin/vfs/vfstest"
)

// TestPath runs the suite through system calls. GONDOLIN_VFSTEST_DIR names a mounted directory, and without it a directory of
// this machine shows that the suite agrees with Linux. GONDOLIN_VFSTEST_MODE is "memory" (the default), "dir" or
// "readonly", for the provider beneath; GONDOLIN_VFSTEST_MANY is the size of the large directory.
func TestPath(t *testing.T) {
	dir := os.Getenv("GONDOLIN_VFSTEST_DIR")
	opts := vfstest.Options{}
	if dir == "" {
		dir = t.TempDir()
		opts.FixedOwner = os.Geteuid() != 0
	}
	if many := os.Getenv("GONDOLIN_VFSTEST_MANY"); many != "" {
		n, err := strconv.Atoi(many)
		if err != nil {
			t.Fatalf("GONDOLIN_VFSTEST_MANY: %v", err)
		}
		opts.ManyEntries = n
	}
	switch mode := os.Getenv("GONDOLIN_VFSTEST_MODE"); mode {
	case "":
	case "memory":
		opts.NoXattrs, opts.NoTmpFile = true, true
	case "dir":
		opts.FixedOwner, opts.NoSpecialBits, opts.NoXattrs, opts.NoTmpFile = true, true, true, true
	case "readonly":
		vfstest.RunPathReadOnly(t, dir)
		return
	default:
		t.Fatalf("GONDOLIN_VFSTEST_MODE=%q is not known", mode)
	}
	vfstest.RunPath(t, dir, opts)
}
