package jail

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// filterABI: there is one way to number calls.
var filterABI []unix.SockFilter

// deniedABI are calls that not every architecture has.
var deniedABI = []uint32{unix.SYS_KEXEC_FILE_LOAD, unix.SYS_LOOKUP_DCOOKIE}
