package jail

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// capabilities returns the calling thread's (capget(2)).
func capabilities() (*unix.CapUserHeader, *[2]unix.CapUserData, error) {
	header := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(header, &data[0]); err != nil {
		return nil, nil, fmt.Errorf("cannot read capabilities: %w", err)
	}
	return header, &data, nil
}

// has says whether the calling thread has a capability.
func has(capability uint) bool {
	_, data, err := capabilities()
	return err == nil && data[capability/32].Effective&(1<<(capability%32)) != 0
}

// dropCapabilities sees to it that what the calling thread executes has none, also
// as root: nothing is inherited and the bounding set is empty. The thread itself
// keeps what it has, to change the child's user, and so that its end can kill it.
func dropCapabilities() error {
	header, data, err := capabilities()
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("cannot drop ambient capabilities: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(header, &data[0]); err != nil {
		return fmt.Errorf("cannot drop inheritable capabilities: %w", err)
	}
	if data[0].Permitted|data[1].Permitted == 0 {
		return nil // with no_new_privs there is no way to any
	}
	for c := range uintptr(64) {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // the kernel knows no more
		}
		if err != nil {
			return fmt.Errorf("cannot drop capability %d: %w", c, err)
		}
	}
	return nil
}
