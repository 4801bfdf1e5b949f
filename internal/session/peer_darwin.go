package session

import "golang.org/x/sys/unix"

// peerUser returns the effective user id of the process that connected, LOCAL_PEERCRED of unix(4).
func peerUser(fd int) (uint32, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
