//go:build linux

package guest

import (
	"os"
	"syscall"
	"time"
)

// rehearsals are commands that agents begin with. A guest that is about to be
// copied runs each once, so that its copies find the programs and libraries in
// memory instead of unpacking them from the image. What an image does not have is
// left out.
var rehearsals = [][]string{
	{"/bin/sh", "-c", "exit 0"},
	{"/bin/bash", "-c", "exit 0"},
	{"/bin/ls", "/"},
	{"/usr/bin/python3", "-c", "pass"},
	{"/usr/bin/git", "--version"},
	{"/usr/bin/curl", "--version"},
}

// rehearsalTimeout bounds one rehearsal: seconds under emulation.
const rehearsalTimeout = 20 * time.Second

// rehearse runs the rehearsals. None of them matters enough to fail.
func (a *agent) rehearse() {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer null.Close()
	for _, args := range rehearsals {
		p, err := a.exec.Reaper.Start(args[0], args, &syscall.ProcAttr{
			Dir: "/", Env: []string{"PATH=/usr/bin:/bin", "HOME=/nonexistent"},
			Files: []uintptr{null.Fd(), null.Fd(), null.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true},
		})
		if err != nil {
			continue
		}
		timeout := time.AfterFunc(rehearsalTimeout, func() { _ = p.Signal(syscall.SIGKILL) })
		<-p.Done()
		timeout.Stop()
	}
}
