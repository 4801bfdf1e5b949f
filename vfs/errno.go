package vfs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"syscall"
)

// Errno is an error number with Linux's value (asm-generic/errno.h) on every host.
type Errno uint32 //nolint:errname // as syscall.Errno

// Error numbers that a provider may return.
const (
	EPERM        Errno = 1   // operation not permitted
	ENOENT       Errno = 2   // no such file or directory
	EINTR        Errno = 4   // interrupted
	EIO          Errno = 5   // input/output error
	ENXIO        Errno = 6   // no such device or address
	E2BIG        Errno = 7   // argument list too long
	EBADF        Errno = 9   // bad file descriptor
	EAGAIN       Errno = 11  // try again
	ENOMEM       Errno = 12  // out of memory
	EACCES       Errno = 13  // permission denied
	EBUSY        Errno = 16  // resource busy
	EEXIST       Errno = 17  // file exists
	EXDEV        Errno = 18  // cross-device link
	ENODEV       Errno = 19  // no such device
	ENOTDIR      Errno = 20  // not a directory
	EISDIR       Errno = 21  // is a directory
	EINVAL       Errno = 22  // invalid argument
	ENFILE       Errno = 23  // too many open files in system
	EMFILE       Errno = 24  // too many open files
	ENOTTY       Errno = 25  // not a typewriter
	ETXTBSY      Errno = 26  // text file busy
	EFBIG        Errno = 27  // file too large
	ENOSPC       Errno = 28  // no space left on device
	ESPIPE       Errno = 29  // illegal seek
	EROFS        Errno = 30  // read-only file system
	EMLINK       Errno = 31  // too many links
	EPIPE        Errno = 32  // broken pipe
	ERANGE       Errno = 34  // result out of range
	EDEADLK      Errno = 35  // deadlock avoided
	ENAMETOOLONG Errno = 36  // file name too long
	ENOLCK       Errno = 37  // no locks available
	ENOSYS       Errno = 38  // function not implemented
	ENOTEMPTY    Errno = 39  // directory not empty
	ELOOP        Errno = 40  // too many symbolic links
	ENODATA      Errno = 61  // no data available
	EPROTO       Errno = 71  // protocol error
	EOVERFLOW    Errno = 75  // value too large
	EOPNOTSUPP   Errno = 95  // operation not supported
	ECONNRESET   Errno = 104 // connection reset
	ETIMEDOUT    Errno = 110 // timed out
	ECONNREFUSED Errno = 111 // connection refused
	ESTALE       Errno = 116 // stale file handle
	EDQUOT       Errno = 122 // disk quota exceeded
	ECANCELED    Errno = 125 // cancelled
)

// maxErrno is the first value that Linux keeps to itself: fuse_dev_do_write refuses errors from 512 (ERESTARTSYS) on.
const maxErrno = 512

// Error returns a short description.
func (e Errno) Error() string {
	if text, ok := errnoText[e]; ok {
		return text
	}
	return "errno " + strconv.FormatUint(uint64(e), 10)
}

// Is lets errors.Is compare an Errno with the errors of io/fs.
func (e Errno) Is(target error) bool {
	for _, row := range errnoFromError {
		if row.err == target && row.errno == e {
			return true
		}
	}
	return target == fs.ErrPermission && e == EPERM
}

// ErrnoOf returns what the guest sees for an error: 0 for nil, EIO for an error it does not know. It looks at the
// error's chain, never at its text.
func ErrnoOf(err error) Errno {
	if err == nil {
		return 0
	}
	if own, ok := errors.AsType[Errno](err); ok {
		return ownErrno(own)
	}
	if host, ok := errors.AsType[syscall.Errno](err); ok {
		return ownErrno(hostErrno(host))
	}
	for _, row := range errnoFromError {
		if errors.Is(err, row.err) {
			return row.errno
		}
	}
	return EIO
}

// ownErrno replaces values that must not reach a guest's kernel.
func ownErrno(e Errno) Errno {
	if e == 0 || e >= maxErrno {
		return EIO
	}
	return e
}

// errnoFromError maps the errors of the standard library that carry no number.
var errnoFromError = []struct {
	err   error
	errno Errno
}{
	{fs.ErrNotExist, ENOENT},
	{fs.ErrExist, EEXIST},
	{fs.ErrPermission, EACCES},
	{fs.ErrInvalid, EINVAL},
	{fs.ErrClosed, EBADF},
	{errors.ErrUnsupported, EOPNOTSUPP},
	{context.Canceled, EINTR},
	{context.DeadlineExceeded, EINTR},
	{os.ErrDeadlineExceeded, ETIMEDOUT},
}

var errnoText = map[Errno]string{
	EPERM:        "operation not permitted",
	ENOENT:       "no such file or directory",
	EINTR:        "interrupted",
	EIO:          "input/output error",
	ENXIO:        "no such device or address",
	E2BIG:        "argument list too long",
	EBADF:        "bad file descriptor",
	EAGAIN:       "try again",
	ENOMEM:       "out of memory",
	EACCES:       "permission denied",
	EBUSY:        "resource busy",
	EEXIST:       "file exists",
	EXDEV:        "cross-device link",
	ENODEV:       "no such device",
	ENOTDIR:      "not a directory",
	EISDIR:       "is a directory",
	EINVAL:       "invalid argument",
	ENFILE:       "too many open files in system",
	EMFILE:       "too many open files",
	ENOTTY:       "not a typewriter",
	ETXTBSY:      "text file busy",
	EFBIG:        "file too large",
	ENOSPC:       "no space left on device",
	ESPIPE:       "illegal seek",
	EROFS:        "read-only file system",
	EMLINK:       "too many links",
	EPIPE:        "broken pipe",
	ERANGE:       "result out of range",
	EDEADLK:      "deadlock avoided",
	ENAMETOOLONG: "file name too long",
	ENOLCK:       "no locks available",
	ENOSYS:       "function not implemented",
	ENOTEMPTY:    "directory not empty",
	ELOOP:        "too many symbolic links",
	ENODATA:      "no data available",
	EPROTO:       "protocol error",
	EOVERFLOW:    "value too large",
	EOPNOTSUPP:   "operation not supported",
	ECONNRESET:   "connection reset",
	ETIMEDOUT:    "timed out",
	ECONNREFUSED: "connection refused",
	ESTALE:       "stale file handle",
	EDQUOT:       "disk quota exceeded",
	ECANCELED:    "cancelled",
}
