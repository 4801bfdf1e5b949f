package jail

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// filterABI refuses the x32 calls, which have bit 30 set (asm/unistd.h) and would
// otherwise be other numbers for the same.
var filterABI = []unix.SockFilter{
	jump(unix.BPF_JGE, 0x4000_0000, 0, 1),
	ret(retDeny),
}

// deniedABI are calls that newer architectures do without.
var deniedABI = []uint32{
	unix.SYS_CHMOD, unix.SYS_CHOWN, unix.SYS_LCHOWN, unix.SYS_UTIME, unix.SYS_UTIMES, unix.SYS_FUTIMESAT,
	unix.SYS_INOTIFY_INIT, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT,
	unix.SYS_USELIB, unix.SYS_USTAT, unix.SYS_SYSFS, unix.SYS_LOOKUP_DCOOKIE,
}
