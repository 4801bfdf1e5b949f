package jail

import (
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The filter refuses what Landlock does not cover and what QEMU's own filter leaves
// open, on kernels of any age. It is written for a program that has all its sockets
// already. A refusal is an error and not the end, so that a program may try and do
// without. Documentation/userspace-api/seccomp_filter.rst.

// denied are the system calls that fail with EPERM.
var denied = []uint32{
	// New ways out. The program keeps the sockets it was given.
	unix.SYS_SOCKET, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4,
	// Other processes. Not tgkill, with which threads of the program wake each other.
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE,
	unix.SYS_PROCESS_MRELEASE, unix.SYS_KCMP, unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_GETFD, unix.SYS_PIDFD_SEND_SIGNAL,
	unix.SYS_KILL, unix.SYS_TKILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO,
	unix.SYS_SETPRIORITY, unix.SYS_IOPRIO_SET, unix.SYS_SCHED_SETAFFINITY, unix.SYS_SCHED_SETATTR,
	unix.SYS_SCHED_SETPARAM, unix.SYS_SCHED_SETSCHEDULER, unix.SYS_MOVE_PAGES, unix.SYS_MIGRATE_PAGES,
	unix.SYS_SHMGET, unix.SYS_SHMAT, unix.SYS_SHMCTL, unix.SYS_SEMGET, unix.SYS_SEMCTL, unix.SYS_MSGGET, unix.SYS_MSGCTL,
	unix.SYS_MQ_OPEN, unix.SYS_MQ_UNLINK,
	// Programs that are not files.
	unix.SYS_EXECVEAT, unix.SYS_MEMFD_CREATE, unix.SYS_MEMFD_SECRET,
	// What belongs to a file besides its content: Landlock does not cover it.
	unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_UTIMENSAT,
	unix.SYS_SETXATTR, unix.SYS_LSETXATTR, unix.SYS_FSETXATTR,
	unix.SYS_REMOVEXATTR, unix.SYS_LREMOVEXATTR, unix.SYS_FREMOVEXATTR,
	unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_FANOTIFY_INIT, unix.SYS_INOTIFY_INIT1,
	// Namespaces and mounts.
	unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT,
	unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK,
	unix.SYS_MOUNT_SETATTR,
	// Parts of the kernel that have been a way in, or are for administrators.
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
	unix.SYS_KEXEC_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD,
	unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME,
	unix.SYS_ADJTIMEX, unix.SYS_SYSLOG, unix.SYS_VHANGUP, unix.SYS_PERSONALITY, unix.SYS_REMAP_FILE_PAGES,
	unix.SYS_IO_SETUP,
}

// absent are the system calls that seem to be missing, so that libraries use others.
// io_uring does by itself, unseen by any filter, what system calls do.
var absent = []uint32{unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER}

// frozen are denied as well to a program that may not change files.
var frozen = []uint32{unix.SYS_FALLOCATE, unix.SYS_FTRUNCATE, unix.SYS_TRUNCATE, unix.SYS_MREMAP}

// signals are what threads of the program may send, to any process as far as the
// filter can tell: QEMU's kick of a virtual CPU, its coroutines, and the preemption of Go's
// runtime, which runs on the thread that starts the program. A Go program ignores all three.
var signals = []uint32{uint32(unix.SIGUSR1), uint32(unix.SIGUSR2), uint32(unix.SIGURG)}

// controls are the kinds of ioctl, the second byte of the request: terminals and
// generic files (asm-generic/ioctls.h), sockets (linux/sockios.h) and KVM (linux/kvm.h). Among
// the others are those that change files without writing to them.
var controls = []uint32{0x54, 0x89, 0xae}

// Offsets in struct seccomp_data (include/uapi/linux/seccomp.h); both architectures
// are little-endian.
const (
	dataNumber = 0
	dataArch   = 4
	dataArgs   = 16
)

func low(arg uint32) uint32  { return dataArgs + 8*arg }
func high(arg uint32) uint32 { return low(arg) + 4 }

const (
	retAllow = unix.SECCOMP_RET_ALLOW
	retDeny  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
)

func statement(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

func load(offset uint32) unix.SockFilter {
	return statement(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset)
}

func ret(k uint32) unix.SockFilter { return statement(unix.BPF_RET|unix.BPF_K, k) }

// jump skips yes instructions if the comparison holds, or else no.
func jump(op uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

// call runs block, which ends every way through it, for one system call.
func call(nr uint32, block ...unix.SockFilter) []unix.SockFilter {
	no := uint8(len(block)) //nolint:gosec // blocks are short
	return append([]unix.SockFilter{jump(unix.BPF_JEQ, nr, 0, no)}, block...)
}

// oneOf allows what the instructions of first load if it is among values.
func oneOf(values []uint32, first ...unix.SockFilter) []unix.SockFilter {
	block := slices.Clone(first)
	for i, v := range values {
		last := uint8(0)
		if i == len(values)-1 {
			last = 1
		}
		block = append(block, jump(unix.BPF_JEQ, v, uint8(len(values)-1-i), last)) //nolint:gosec // a few values
	}
	return append(block, ret(retAllow), ret(retDeny))
}

// filter returns the program for a config.
func filter(config Config) []unix.SockFilter {
	program := []unix.SockFilter{
		load(dataArch),
		jump(unix.BPF_JEQ, auditArch, 1, 0),
		ret(unix.SECCOMP_RET_KILL_PROCESS), // another architecture numbers its calls otherwise
		load(dataNumber),
	}
	program = append(program, filterABI...)
	program = append(program, call(unix.SYS_IOCTL, oneOf(controls, load(low(1)),
		statement(unix.BPF_ALU|unix.BPF_RSH|unix.BPF_K, 8), statement(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0xff))...)...)
	program = append(program, call(unix.SYS_TGKILL, oneOf(signals, load(low(2)))...)...)
	// Its own limits, which os/exec sets in the child, and nobody else's.
	program = append(program, call(unix.SYS_PRLIMIT64, oneOf([]uint32{0}, load(low(0)))...)...)
	if config.Frozen {
		program = append(program, call(unix.SYS_MMAP, privateMaps(config.Devices)...)...)
	}
	for _, nr := range absent {
		program = append(program, call(nr, ret(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)))...)
	}
	for _, nr := range slices.Concat(denied, deniedABI) {
		program = append(program, call(nr, ret(retDeny))...)
	}
	if config.Frozen {
		for _, nr := range frozen {
			program = append(program, call(nr, ret(retDeny))...)
		}
	}
	return append(program, ret(retAllow))
}

// privateMaps allows mmap(2) of memory and private mappings of files. A device may
// need a shared one, which then is small and at offset 0.
func privateMaps(devices []string) []unix.SockFilter {
	block := []unix.SockFilter{
		load(low(3)), // flags; MAP_SHARED and MAP_SHARED_VALIDATE have bit 0
		jump(unix.BPF_JSET, unix.MAP_SHARED, 1, 0),
		ret(retAllow),
		load(low(4)), // the descriptor
		jump(unix.BPF_JEQ, 0xffff_ffff, 0, 1),
		ret(retAllow),
	}
	if len(devices) > 0 {
		block = append(block,
			load(high(1)), // the length
			jump(unix.BPF_JEQ, 0, 0, 7),
			load(low(1)),
			jump(unix.BPF_JGT, sharedWindow, 5, 0),
			load(high(5)), // the offset
			jump(unix.BPF_JEQ, 0, 0, 3),
			load(low(5)),
			jump(unix.BPF_JEQ, 0, 0, 1),
			ret(retAllow),
		)
	}
	return append(block, ret(retDeny))
}

// enforceFilter puts the calling thread under the filter.
func enforceFilter(config Config) error {
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		return fmt.Errorf("not built for %s", runtime.GOARCH)
	}
	program := filter(config)
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]} //nolint:gosec // a few hundred
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return fmt.Errorf("cannot install the filter: %w", errno)
	}
	return nil
}
