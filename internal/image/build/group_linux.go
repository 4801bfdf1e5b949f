package build

import "syscall"

// processGroup puts a tool into a group of its own, so that all of it can be ended, and has the kernel end it when this
// process is killed: mmdebstrap tidies up on SIGTERM.
func processGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
