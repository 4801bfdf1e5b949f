package qemu

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// MissingError says that QEMU is not installed. Its text has two lines, the
// second of which says what to do.
type MissingError struct {
	Name string // what was looked for: a name in PATH or a path
	Arch Arch
}

// Error says what is missing and how to install it.
func (e *MissingError) Error() string {
	deb, rpm := "qemu-system-x86", "qemu-system-x86-core"
	if e.Arch == ARM64 {
		deb, rpm = "qemu-system-arm", "qemu-system-aarch64-core"
	}
	return fmt.Sprintf("cannot find %s\ninstall QEMU 7.2 or newer: apt install %s (Debian, Ubuntu), dnf install %s (Fedora), brew install qemu (macOS)",
		e.Name, deb, rpm)
}

// FindBinary returns the absolute path of the QEMU in PATH that runs arch guests.
func FindBinary(arch Arch) (string, error) {
	name := "qemu-system-x86_64"
	if arch == ARM64 {
		name = "qemu-system-aarch64"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", &MissingError{Name: name, Arch: arch}
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("cannot find %s: %w", name, err)
	}
	return path, nil
}

// Locate returns path if there is a file, and for an empty path what FindBinary does.
func Locate(path string, arch Arch) (string, error) {
	if path == "" {
		return FindBinary(arch)
	}
	return path, checkBinary(path, arch)
}

// checkBinary tells a QEMU that is not there from one that does not work.
func checkBinary(path string, arch Arch) error {
	if _, err := os.Stat(path); os.IsNotExist(err) {
		return &MissingError{Name: path, Arch: arch}
	}
	return nil
}
