package paths

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Ensure creates dir, for its owner only, with the parents it lacks, and refuses a directory another user could
// change: one owned by somebody else, writable by group or others, or below a directory anybody may rename entries of.
func Ensure(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("cannot use directory %q: not an absolute path", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot create directory %s: %w", dir, err)
	}
	return Check(dir)
}

// Check is Ensure without creating anything.
func Check(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("cannot use directory %s: %w", dir, err)
	}
	if err := private(info, os.Geteuid()); err != nil {
		return fmt.Errorf("cannot use directory %s: %v; repair it or set GONDOLIN_HOME to a directory of your own", dir, err)
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("cannot use directory %s: %w", dir, err)
	}
	for parent := filepath.Dir(real); ; parent = filepath.Dir(parent) {
		info, err := os.Stat(parent)
		if err != nil {
			return fmt.Errorf("cannot use directory %s: %w", dir, err)
		}
		// Only the world-writable are refused here: a group-writable home is common where every user has a group.
		if info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
			return fmt.Errorf("cannot use directory %s: anybody may rename entries of its parent %s", dir, parent)
		}
		if parent == filepath.Dir(parent) {
			return nil
		}
	}
}

func private(info fs.FileInfo, uid int) error {
	if !info.IsDir() {
		return errors.New("not a directory")
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("its owner is unknown")
	}
	if int64(stat.Uid) != int64(uid) {
		return fmt.Errorf("it belongs to user %d, not to %d", stat.Uid, uid)
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("others may write to it (mode %04o)", perm)
	}
	return nil
}
