//go:build linux

package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"gondolin/internal/guest/boot"
	"gondolin/internal/guest/setup"
	"gondolin/internal/rpc"
	"gondolin/internal/wire"

	"golang.org/x/sys/unix"
)

const (
	// freezeTimeout bounds the wait for the commands to stand still. Those in the middle
	// of a file operation do so when the host has answered it.
	freezeTimeout = 5 * time.Second
	// restTimeout bounds the wait for the host to answer all file operations.
	restTimeout = 5 * time.Second
)

// suspend serves a suspend stream (package wire, section 6).
func (a *agent) suspend(ctx context.Context, s *rpc.Stream) {
	defer s.Abort()
	if !a.suspended.TryLock() {
		a.reply(s, wire.Failure(wire.ReasonOther, "cannot suspend: the guest is suspended"))
		return
	}
	if err := a.rest(ctx); err != nil {
		a.suspended.Unlock()
		a.reply(s, wire.Failure(wire.ReasonOther, err.Error()))
		return
	}
	a.reply(s, &wire.Suspended{})
	_, err := wire.Read(s, wire.ToGuest) // Proceed; a host that has given up means the same
	if err != nil && s.Replaced() {
		return // this is a copy, and what the new host sends goes on from here
	}
	a.proceed()
}

// rest freezes the commands and brings their files to rest.
func (a *agent) rest(ctx context.Context) error {
	if err := freeze(boot.Cgroups); err != nil {
		return errors.Join(err, thaw(boot.Cgroups))
	}
	ctx, cancel := context.WithTimeout(ctx, restTimeout)
	defer cancel()
	if err := a.prepared.Files().Hold(ctx); err != nil {
		return errors.Join(err, thaw(boot.Cgroups))
	}
	return nil
}

// proceed ends a suspension.
func (a *agent) proceed() {
	a.prepared.Files().Proceed()
	if err := thaw(boot.Cgroups); err != nil {
		a.log.Error("cannot let the commands go on", "error", err)
	}
	a.suspended.Unlock()
}

// resume serves a resume stream: this is a copy of a guest that was suspended.
func (a *agent) resume(m *wire.Resume, s *rpc.Stream) {
	defer s.Abort()
	if a.suspended.TryLock() {
		a.suspended.Unlock()
		a.reply(s, wire.Failure(wire.ReasonOther, "cannot resume: the guest was not suspended"))
		return
	}
	a.timeline.Restart()
	applied, err := setup.Resume(a.log, m, &a.prepared, a.timeline.Mark)
	if err != nil {
		a.reply(s, wire.Failure(wire.ReasonOther, err.Error())) // and nothing goes on
		return
	}
	a.exec.SetEnv(applied.Env)
	a.proceed()
	a.timeline.Mark("thaw")
	a.reply(s, &wire.Ready{Version: wire.Version, Kernel: kernelRelease(), Steps: a.timeline.Steps})
}

// freeze stops every process below a cgroup, and returns when they stand still
// (cgroup v2, "cgroup.freeze" and "cgroup.events").
func freeze(group string) error {
	if err := setFrozen(group, "1"); err != nil {
		return fmt.Errorf("cannot freeze the commands: %w", err)
	}
	events, err := os.Open(filepath.Join(group, "cgroup.events"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot freeze the commands: %w", err)
	}
	defer events.Close()
	buf := make([]byte, 256)
	for end := time.Now().Add(freezeTimeout); time.Now().Before(end); {
		n, err := events.ReadAt(buf, 0)
		if bytes.Contains(buf[:n], []byte("frozen 1")) {
			return nil
		}
		if n == 0 && err != nil {
			return fmt.Errorf("cannot freeze the commands: %w", err)
		}
		// The kernel announces a change, of which the read above was the last state seen.
		fds := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}} //nolint:gosec // a descriptor
		_, _ = unix.Poll(fds, 20)                                            // interrupted: look again
	}
	return fmt.Errorf("cannot freeze the commands: one of them does not stand still within %v", freezeTimeout)
}

func thaw(group string) error { return setFrozen(group, "0") }

// setFrozen says whether the processes below group run. A kernel without cgroups has none to stop.
func setFrozen(group, value string) error {
	err := os.WriteFile(filepath.Join(group, "cgroup.freeze"), []byte(value), 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
