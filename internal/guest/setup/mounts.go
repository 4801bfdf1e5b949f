//go:build linux

package setup

import (
	"fmt"
	"os"
	"path/filepath"

	"gondolin/internal/guest/fusepump"
	"gondolin/internal/wire"

	"golang.org/x/sys/unix"
)

// filesDir is where the host's file system is mounted while its directories
// are bound to their places.
const filesDir = "/run/gondolin/files"

// mounts mounts what the host serves on the fs port and binds each of its
// directories to its path. Then the mount itself goes out of sight, so that
// each directory has one name only; the binds keep it alive.
func (s *setup) mounts() error {
	if !s.Files {
		return nil
	}
	port, err := s.openPort(wire.PortFiles)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filesDir, 0o700); err != nil {
		return err
	}
	dev, err := fusepump.Mount(filesDir)
	if err != nil {
		return err
	}
	go s.pump(dev, port)
	for _, m := range s.Mounts {
		if err := bind(filepath.Join(filesDir, m.Source), m.Path); err != nil {
			return err
		}
	}
	if err := unix.Unmount(filesDir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot hide %s: %w", filesDir, err)
	}
	return nil
}

// pump runs for the life of the VM. Closing the device at its end fails what waits
// on the mounts instead of leaving it hanging.
func (s *setup) pump(dev, port *os.File) {
	defer dev.Close()
	if err := fusepump.Run(dev, port, &s.prepared.files); err != nil {
		s.log.Error("file service ended", "error", err)
	}
}

func bind(source, target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil { //nolint:gosec // mount points are world-readable
		return fmt.Errorf("cannot make the mount point %s: %w", target, err)
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot mount %s: %w", target, err)
	}
	return nil
}
