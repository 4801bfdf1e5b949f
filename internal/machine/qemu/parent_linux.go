package qemu

import "syscall"

// needsGuard: the kernel kills QEMU when the thread that started it ends.
const needsGuard = false

// dieWithParent asks for the parent-death signal. Package syscall checks in the
// child that the parent did not die in between.
func dieWithParent(attr *syscall.SysProcAttr) {
	attr.Pdeathsig = syscall.SIGKILL
}
