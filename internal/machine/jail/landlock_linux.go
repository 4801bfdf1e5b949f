package jail

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h. What a
// kernel does not know is left out, from its ABI version.

const (
	accessV1 = unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1 // the first 13 rights
	// readFile and the others are the rights in use.
	readFile = unix.LANDLOCK_ACCESS_FS_READ_FILE
	execFile = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_EXECUTE
	device   = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

	// sameProcessErratum: before its fix a thread could not signal the others of its
	// process, which Go's runtime does to preempt them.
	sameProcessErratum = 1 << 1
)

// ruleset is a Landlock ruleset; a nil one allows everything.
type ruleset struct {
	fd   int
	abi  int
	attr unix.LandlockRulesetAttr
}

func landlock(nr, a, b, c uintptr) (int, error) {
	// add_rule has a fourth argument, which must be 0.
	r, _, errno := unix.Syscall6(nr, a, b, c, 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}

func newRuleset() (*ruleset, error) {
	abi, err := landlock(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch {
	case errors.Is(err, unix.ENOSYS):
		return nil, errors.New("the kernel has none (Linux 5.13 does)")
	case errors.Is(err, unix.EOPNOTSUPP):
		return nil, errors.New("it is switched off, see lsm= on the kernel's command line")
	case err != nil:
		return nil, fmt.Errorf("cannot ask for its version: %w", err)
	}
	r := &ruleset{abi: abi, attr: attrFor(abi, errata())}
	r.fd, err = landlock(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&r.attr)), unsafe.Sizeof(r.attr), 0)
	if err != nil {
		return nil, fmt.Errorf("cannot make a ruleset: %w", err)
	}
	return r, nil
}

// errata returns the kernel's list of fixed errors; 0 where it keeps none.
func errata() int {
	n, err := landlock(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_ERRATA)
	if err != nil {
		return 0
	}
	return n
}

// attrFor returns everything that a kernel of this ABI can refuse.
func attrFor(abi, errata int) unix.LandlockRulesetAttr {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: accessV1}
	if abi >= 2 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 4 {
		attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if abi >= 5 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi >= 6 {
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		if errata&sameProcessErratum != 0 {
			attr.Scoped |= unix.LANDLOCK_SCOPE_SIGNAL
		}
	}
	return attr
}

// String says what the ruleset covers.
func (r *ruleset) String() string {
	if r == nil {
		return ""
	}
	parts := []string{"files"}
	if r.attr.Handled_access_net != 0 {
		parts = append(parts, "TCP")
	}
	if r.attr.Handled_access_fs&unix.LANDLOCK_ACCESS_FS_IOCTL_DEV != 0 {
		parts = append(parts, "devices")
	}
	if r.attr.Scoped&unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET != 0 {
		parts = append(parts, "abstract sockets")
	}
	if r.attr.Scoped&unix.LANDLOCK_SCOPE_SIGNAL != 0 {
		parts = append(parts, "signals")
	}
	return fmt.Sprintf("%s (ABI %d)", strings.Join(parts, ", "), r.abi)
}

// fileRights returns what opening a file takes.
func fileRights(access Access) uint64 {
	rights := uint64(readFile)
	if access != Read {
		rights |= unix.LANDLOCK_ACCESS_FS_WRITE_FILE
	}
	if access == Resize {
		rights |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	return rights
}

// allowPath allows rights on what path leads to now, and on all beneath it. What is
// not there needs no rule.
func (r *ruleset) allowPath(path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EACCES) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot make a rule for %s: %w", path, err)
	}
	defer unix.Close(fd)
	return r.allow(fd, path, rights)
}

// allowFile is allowPath for an open file. Files in memory only are not subject to Landlock.
func (r *ruleset) allowFile(f *os.File, rights uint64) error {
	if r == nil {
		return nil
	}
	return r.allow(int(f.Fd()), f.Name(), rights)
}

func (r *ruleset) allow(fd int, path string, rights uint64) error {
	rule := unix.LandlockPathBeneathAttr{
		Allowed_access: rights & r.attr.Handled_access_fs,
		Parent_fd:      int32(fd), //nolint:gosec // a descriptor
	}
	_, err := landlock(unix.SYS_LANDLOCK_ADD_RULE, uintptr(r.fd), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)))
	if errors.Is(err, unix.EBADFD) { // a file in memory
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot make a rule for %s: %w", path, err)
	}
	return nil
}

// enforce locks the calling thread in.
func (r *ruleset) enforce() error {
	if _, err := landlock(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(r.fd), 0, 0); err != nil {
		return fmt.Errorf("cannot enforce the ruleset: %w", err)
	}
	return nil
}

func (r *ruleset) close() {
	if r != nil && r.fd >= 0 {
		_ = unix.Close(r.fd)
		r.fd = -1
	}
}
