package session

import "golang.org/x/sys/unix"

// peerUser returns the effective user id of the process that connected, SO_PEERCRED of unix(7).
func peerUser(fd int) (uint32, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
