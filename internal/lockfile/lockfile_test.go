package lockfile

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func TestTry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Try(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Try(path); !errors.Is(err, ErrHeld) {
		t.Errorf("a held lock: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	second, err := Try(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestTryFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "target"), filepath.Join(dir, "lock")); err != nil {
		t.Fatal(err)
	}
	if _, err := Try(filepath.Join(dir, "lock")); err == nil || errors.Is(err, ErrHeld) {
		t.Errorf("%v", err)
	}
}

func TestWaitIsCancelled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held, err := Try(path)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := Wait(ctx, path, cancel); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Holders that remove the file when they let go still exclude each other.
func TestExclusion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var inside sync.Mutex
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			l, err := Wait(t.Context(), path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if !inside.TryLock() {
				t.Error("two hold the lock")
			} else {
				inside.Unlock()
			}
			if err := l.Remove(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
