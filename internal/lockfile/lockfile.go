// Package lockfile makes one process at a time do something, by flock(2) on a
// file: a process that dies, however it dies, lets go.
package lockfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHeld is wrapped by the error of [Try] when somebody else holds the lock.
var ErrHeld = errors.New("lock is held")

// poll is how often a held lock is tried again; flock(2) cannot be waited for
// together with a context.
const poll = 20 * time.Millisecond

// Lock is a lock that is held. A child process that inherits its file holds it too.
type Lock struct{ file *os.File }

// File returns the file, for a child process to inherit and so to hold the lock
// for as long as it lives. The caller must not close it.
func (l *Lock) File() *os.File { return l.file }

// Close lets go. The file stays.
func (l *Lock) Close() error { return l.file.Close() }

// Remove removes the file and lets go.
func (l *Lock) Remove() error { return errors.Join(os.Remove(l.file.Name()), l.file.Close()) }

// Try takes the lock on the file at path, which it creates with mode 0600, or
// fails with [ErrHeld].
func Try(path string) (*Lock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, fmt.Errorf("cannot lock: %w", err)
		}
		if err := flock(f); err != nil {
			f.Close()
			return nil, err
		}
		if current(f) {
			return &Lock{f}, nil
		}
		f.Close() // its last holder removed it: this lock is on nothing
	}
}

func flock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("cannot lock %s: %w", f.Name(), ErrHeld)
	}
	if err != nil {
		return fmt.Errorf("cannot lock %s: %w", f.Name(), err)
	}
	return nil
}

// current reports whether f is still what its path names.
func current(f *os.File) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(f.Name())
	return err == nil && os.SameFile(mine, there)
}

// Wait takes the lock as Try does, waiting until it is free or ctx is done.
// waiting, which may be nil, is called once if it has to wait.
func Wait(ctx context.Context, path string, waiting func()) (*Lock, error) {
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		l, err := Try(path)
		if !errors.Is(err, ErrHeld) {
			return l, err
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("cannot lock %s: %w", path, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}
