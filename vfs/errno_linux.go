package vfs

import "syscall"

// hostErrno is the identity: the host's numbers are Linux's.
func hostErrno(e syscall.Errno) Errno {
	if e >= maxErrno {
		return EIO
	}
	return Errno(e)
}
