//go:build linux

package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// deviceTimeout bounds the wait for a device the host promised.
const deviceTimeout = 30 * time.Second

func awaitDevice(path string) error {
	return await(path, func() (bool, error) {
		_, err := os.Stat(path)
		return err == nil, nil
	})
}

// OpenPort opens the virtio-serial port with the given name, once it exists.
func OpenPort(name string) (*os.File, error) {
	var port *os.File
	err := await("port "+name, func() (found bool, err error) {
		device, err := findPort(name)
		if err != nil || device == "" {
			return false, err
		}
		// Non-blocking, so that Go's poller serves it.
		port, err = os.OpenFile(device, os.O_RDWR|unix.O_NONBLOCK, 0)
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) || errors.Is(err, os.ErrNotExist) {
			return false, nil // announced, not ready
		}
		return err == nil, err
	})
	return port, err
}

// findPort returns the device of the named port, "" while there is none.
func findPort(name string) (string, error) {
	files, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return "", err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err == nil && strings.TrimSpace(string(content)) == name {
			return "/dev/" + filepath.Base(filepath.Dir(file)), nil
		}
	}
	return "", nil
}

// await checks ready now and again whenever the kernel announces a device
// (a uevent, netlink(7)), until it is true, fails, or deviceTimeout passes.
func await(what string, ready func() (bool, error)) error {
	events, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("cannot listen for devices: %w", err)
	}
	defer unix.Close(events)
	if err := unix.Bind(events, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return fmt.Errorf("cannot listen for devices: %w", err)
	}
	// An announcement may come a moment before what it announces: look again
	// every so often even when none comes.
	if err := unix.SetsockoptTimeval(events, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000}); err != nil {
		return fmt.Errorf("cannot listen for devices: %w", err)
	}
	buf := make([]byte, 4096)
	for end := time.Now().Add(deviceTimeout); time.Now().Before(end); {
		if ok, err := ready(); ok || err != nil {
			return err
		}
		_, _, _ = unix.Recvfrom(events, buf, 0)
	}
	return fmt.Errorf("%s did not appear within %v", what, deviceTimeout)
}
