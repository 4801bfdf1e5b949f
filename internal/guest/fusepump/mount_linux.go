package fusepump

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Mount mounts a new FUSE connection at target and returns its device. The mount exists, and every access to it
// blocks, until somebody serves the device with Run; closing the device ends the connection. The caller closes it.
//
// All users of the guest may use the mount (allow_other) and the guest's kernel checks their permissions
// (default_permissions); set-user-ID bits and device nodes have no effect.
func Mount(target string) (*os.File, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open FUSE device: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other,max_read=%d",
		fd, maxPayload)
	err = unix.Mount("gondolin", target, "fuse.gondolin", unix.MS_NOSUID|unix.MS_NODEV, options)
	if err == nil {
		// Only now: before it is mounted the device polls as failed (fuse_dev_poll in
		// fs/fuse/dev.c), which Go's poller would never forget.
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("cannot mount FUSE at %q: %w", target, err)
	}
	return os.NewFile(uintptr(fd), "/dev/fuse"), nil
}
