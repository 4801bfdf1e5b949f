//go:build !linux

package build

import "syscall"

// processGroup puts a tool into a group of its own, so that all of it can be ended.
func processGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
