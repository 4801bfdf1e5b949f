package qemu

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// guardScript kills the process whose id it is told once nobody holds the other
// end of descriptor 3 any more. It uses nothing but the shell's own commands.
const guardScript = `read -r pid <&3 && { read -r never <&3; kill -9 "$pid"; }`

// guard is a shell that outlives this process just long enough to kill QEMU. Its
// own process group keeps it from dying of the terminal's signals first.
type guard struct {
	cmd  *exec.Cmd
	pipe *os.File // held by this process only; its closing is the signal
}

func startGuard() (*guard, error) {
	theirs, ours, err := os.Pipe() // close-on-exec, so that QEMU does not hold it
	if err != nil {
		return nil, fmt.Errorf("cannot make the guard's pipe: %w", err)
	}
	defer theirs.Close()
	g := &guard{pipe: ours, cmd: &exec.Cmd{
		Path: "/bin/sh", Args: []string{"sh", "-c", guardScript},
		Env: []string{}, Dir: "/", ExtraFiles: []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}}
	if err := g.cmd.Start(); err != nil {
		ours.Close()
		return nil, fmt.Errorf("cannot start the guard: %w", err)
	}
	return g, nil
}

// watch tells the guard whom to kill.
func (g *guard) watch(pid int) error {
	_, err := g.pipe.WriteString(strconv.Itoa(pid) + "\n")
	return err
}

// stop ends the guard without its doing anything: it dies before the pipe closes.
func (g *guard) stop() {
	if g == nil {
		return
	}
	_ = g.cmd.Process.Kill() // fails only if it is gone
	_ = g.cmd.Wait()         // reports the kill
	g.pipe.Close()
}
