//go:build linux

// Package setup makes a booted guest a particular VM, as the host's Setup
// message says (package wire, section 4).
package setup

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"gondolin/internal/wire"

	"golang.org/x/sys/unix"
)

// Applied is what setting up produced.
type Applied struct {
	// Env is the base environment of commands.
	Env []string
}

// setup is one run of Apply.
type setup struct {
	*wire.Setup
	log      *slog.Logger
	openPort func(name string) (*os.File, error)
	prepared *Prepared
	applied  Applied
}

func newSetup(log *slog.Logger, m *wire.Setup, prepared *Prepared) *setup {
	s := &setup{Setup: m, log: log, prepared: prepared}
	for _, env := range m.Env {
		s.applied.Env = append(s.applied.Env, string(env))
	}
	return s
}

// Apply carries out m, in a fixed order; mark is called after each step with
// its name. openPort opens a virtio-serial port. An error names the step and
// leaves the guest half set up: the caller should give up.
func Apply(
	log *slog.Logger, m *wire.Setup, prepared *Prepared, openPort func(string) (*os.File, error), mark func(string),
) (*Applied, error) {
	s := newSetup(log, m, prepared)
	s.openPort = openPort
	steps := append(s.identity(), step{"network", s.network}, step{"certificates", s.certificates}, step{"mounts", s.mounts})
	return s.run(steps, mark)
}

// Resume makes a copy of a guest that had been set up a VM of its own.
func Resume(log *slog.Logger, m *wire.Resume, prepared *Prepared, mark func(string)) (*Applied, error) {
	s := newSetup(log, &wire.Setup{Hostname: m.Hostname, Time: m.Time, Entropy: m.Entropy, CA: m.CA, Env: m.Env}, prepared)
	return s.run(append(s.identity(), step{"certificates", s.certificates}), mark)
}

// step is one part of setting up.
type step struct {
	name string
	run  func() error
}

// identity is what no two VMs may share.
func (s *setup) identity() []step {
	return []step{{"clock", s.clock}, {"entropy", s.entropy}, {"hostname", s.hostname}, {"machine id", s.machineID}}
}

func (s *setup) run(steps []step, mark func(string)) (*Applied, error) {
	for _, step := range steps {
		if err := step.run(); err != nil {
			return nil, fmt.Errorf("cannot set up %s: %w", step.name, err)
		}
		mark(step.name)
	}
	return &s.applied, nil
}

func (s *setup) clock() error {
	if s.Time == 0 {
		return nil
	}
	return SetClock(s.Time)
}

// SetClock sets the wall clock, in ns since the Unix epoch.
func SetClock(ns int64) error {
	ts := unix.NsecToTimespec(ns)
	return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}

func (s *setup) hostname() error {
	if s.Hostname == "" {
		return nil
	}
	if err := syscall.Sethostname([]byte(s.Hostname)); err != nil {
		return err
	}
	if err := write("/etc/hostname", s.Hostname+"\n"); err != nil {
		return err
	}
	return write("/etc/hosts", "127.0.0.1 localhost "+s.Hostname+"\n::1 localhost ip6-localhost ip6-loopback\n")
}

// machineID gives the VM an identity of its own (machine-id(5)), from the random
// generator that has just been seeded.
func (s *setup) machineID() error {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	return write("/etc/machine-id", hex.EncodeToString(id)+"\n")
}

// write replaces a file, following no link: an image may link /etc/resolv.conf
// to where a resolver would keep it. A regular file is overwritten in place, which
// costs nothing more where it has been written to before.
func write(path, content string) error {
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
		return os.WriteFile(path, []byte(content), 0o644) //nolint:gosec // keeps its mode
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // system directories are world-readable
		return err
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644) //nolint:gosec // read by every user of the guest
}
