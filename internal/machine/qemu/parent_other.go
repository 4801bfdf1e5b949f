//go:build !linux

package qemu

import "syscall"

// needsGuard: there is no parent-death signal, see guard.
const needsGuard = true

func dieWithParent(*syscall.SysProcAttr) {}
