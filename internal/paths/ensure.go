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
// change: one owned by somebody else, writable by group or others, or below a directory in which anybody, or a user who
// owns it and is neither this one nor the system's, may rename entries.
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
	// Who owns / can change everything. That is root, but in a user namespace root may have no number.
	system, err := ownerOf("/")
	if err != nil {
		return fmt.Errorf("cannot use directory %s: %w", dir, err)
	}
	for parent := filepath.Dir(real); ; parent = filepath.Dir(parent) {
		info, err := os.Stat(parent)
		if err != nil {
			return fmt.Errorf("cannot use directory %s: %w", dir, err)
		}
		uid, err := owner(info)
		if err != nil {
			return fmt.Errorf("cannot use directory %s: %w", dir, err)
		}
		if uid != int64(os.Geteuid()) && uid != system {
			return fmt.Errorf("cannot use directory %s: its parent %s belongs to user %d, who may rename what is in it", dir, parent, uid)
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
	have, err := owner(info)
	if err != nil {
		return err
	}
	if have != int64(uid) {
		return fmt.Errorf("it belongs to user %d, not to %d", have, uid)
	}
	if perm := info.Mode().Perm(); perm&0o022 != 0 {
		return fmt.Errorf("others may write to it (mode %04o)", perm)
	}
	return nil
}

// ownerOf is owner for a path.
func ownerOf(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return owner(info)
}

// owner returns the user id of a file's owner.
func owner(info fs.FileInfo) (int64, error) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("the owner of %s is unknown", info.Name())
	}
	return int64(stat.Uid), nil
}
