//go:build linux

package setup

import (
	"errors"
	"os"

	"gondolin/internal/guest/fusepump"
	"gondolin/internal/wire"
)

// Prepared is what a guest has done that its copies need not do again, or have to
// undo. The zero value has done nothing.
type Prepared struct {
	network *wire.Network // eth0 is up so
	ca      *wire.CA      // is trusted
	files   fusepump.Gate // of the pump, if there is one
}

// Files is the gate between the guest's file systems and the host.
func (p *Prepared) Files() *fusepump.Gate { return &p.files }

// Prepare does what every copy would have to do, and moves the files that setups
// write to from the image to the writable layer of the root.
func (p *Prepared) Prepare(expect *wire.Quiesce) error {
	if expect.Network != nil {
		s := &setup{Setup: &wire.Setup{Network: expect.Network}, prepared: p}
		if err := s.network(); err != nil {
			return err
		}
		p.network = expect.Network
	}
	for _, path := range []string{"/etc/hostname", "/etc/hosts", "/etc/machine-id"} {
		if err := write(path, ""); err != nil {
			return err
		}
	}
	for _, path := range bundles {
		if err := touch(path); err != nil {
			return err
		}
	}
	return nil
}

// touch opens a file for writing, if there is one.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}
