package vfs

import "syscall"

// hostErrno maps Darwin's numbers by name; unknown is EIO.
func hostErrno(e syscall.Errno) Errno {
	return errnoFromDarwin[e]
}

var errnoFromDarwin = map[syscall.Errno]Errno{
	syscall.EPERM:        EPERM,
	syscall.ENOENT:       ENOENT,
	syscall.EINTR:        EINTR,
	syscall.EIO:          EIO,
	syscall.ENXIO:        ENXIO,
	syscall.E2BIG:        E2BIG,
	syscall.EBADF:        EBADF,
	syscall.EAGAIN:       EAGAIN,
	syscall.ENOMEM:       ENOMEM,
	syscall.EACCES:       EACCES,
	syscall.EBUSY:        EBUSY,
	syscall.EEXIST:       EEXIST,
	syscall.EXDEV:        EXDEV,
	syscall.ENODEV:       ENODEV,
	syscall.ENOTDIR:      ENOTDIR,
	syscall.EISDIR:       EISDIR,
	syscall.EINVAL:       EINVAL,
	syscall.ENFILE:       ENFILE,
	syscall.EMFILE:       EMFILE,
	syscall.ENOTTY:       ENOTTY,
	syscall.ETXTBSY:      ETXTBSY,
	syscall.EFBIG:        EFBIG,
	syscall.ENOSPC:       ENOSPC,
	syscall.ESPIPE:       ESPIPE,
	syscall.EROFS:        EROFS,
	syscall.EMLINK:       EMLINK,
	syscall.EPIPE:        EPIPE,
	syscall.ERANGE:       ERANGE,
	syscall.EDEADLK:      EDEADLK,
	syscall.ENAMETOOLONG: ENAMETOOLONG,
	syscall.ENOLCK:       ENOLCK,
	syscall.ENOSYS:       ENOSYS,
	syscall.ENOTEMPTY:    ENOTEMPTY,
	syscall.ELOOP:        ELOOP,
	syscall.ENODATA:      ENODATA,
	syscall.EPROTO:       EPROTO,
	syscall.EOVERFLOW:    EOVERFLOW,
	syscall.EOPNOTSUPP:   EOPNOTSUPP,
	syscall.ECONNRESET:   ECONNRESET,
	syscall.ETIMEDOUT:    ETIMEDOUT,
	syscall.ECONNREFUSED: ECONNREFUSED,
	syscall.ESTALE:       ESTALE,
	syscall.EDQUOT:       EDQUOT,
	syscall.ECANCELED:    ECANCELED,
	syscall.ENOATTR:      ENODATA,
	syscall.ENOTSUP:      EOPNOTSUPP,
	syscall.EPROTOTYPE:   EPROTO,
}
