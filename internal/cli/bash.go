package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"gondolin"
)

// detachKey is Ctrl-], which no shell uses.
const detachKey = 0x1d

func (a *app) bashCommand() *cobra.Command {
	var flags vmFlags
	cmd := &cobra.Command{
		Use:   "bash [flags] [-- COMMAND [ARG…]]",
		Short: "Open a shell in a new VM",
		Long: `Open an interactive shell, or run COMMAND with a terminal, in a new VM.

Ctrl-] leaves it; the VM ends with this process. When standard input is not a
terminal, the shell reads its commands from there.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			interactive := term.IsTerminal(int(a.stdio.In.Fd()))
			if len(args) == 0 {
				args = []string{"/bin/bash"}
				if interactive {
					args = append(args, "-i")
				}
			}
			return a.withVM(cmd.Context(), &flags, args[0], func(ctx context.Context, vm *gondolin.VM) error {
				c := vm.Command(ctx, args[0], args[1:]...)
				if interactive {
					return a.interact(c, &flags)
				}
				return a.stream(c, &flags)
			})
		},
	}
	flags.register(cmd.Flags())
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// interact runs c on a terminal of its own, joined to this process's if it has one.
func (a *app) interact(c *gondolin.Cmd, flags *vmFlags) error {
	fd := int(a.stdio.In.Fd())
	size := gondolin.Size{Rows: 24, Cols: 80}
	isTerminal := term.IsTerminal(fd)
	if isTerminal {
		size = terminalSize(fd, size)
	}
	c.Env, c.Dir, c.User = append([]string{"TERM=" + a.terminalType()}, flags.env...), flags.cwd, flags.user
	c.TTY = &size
	input := &detachReader{r: a.stdio.In, pressed: make(chan struct{})}
	c.Stdin, c.Stdout = input, a.stdio.Out
	if !isTerminal {
		c.Stdin = a.stdio.In
		return c.Run()
	}
	old, err := term.MakeRaw(fd)
	if err != nil {
		return fmt.Errorf("cannot set up the terminal: %w", err)
	}
	defer func() { _ = term.Restore(fd, old) }()
	if err := c.Start(); err != nil {
		return err
	}
	stop := followSize(c, fd, size)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-input.pressed:
		fmt.Fprint(a.stdio.Err, "\r\ngondolin: detached; the VM ends\r\n")
		return exitError(exitInterrupted)
	}
}

// terminalType is what the guest is told of the terminal: this one's type, where
// the guest can be expected to know it.
func (a *app) terminalType() string {
	switch t := a.getenv("TERM"); t {
	case "", "xterm-ghostty", "xterm-kitty", "alacritty":
		return "xterm-256color"
	default:
		return t
	}
}

func terminalSize(fd int, fallback gondolin.Size) gondolin.Size {
	cols, rows, err := term.GetSize(fd)
	if err != nil || cols <= 0 || rows <= 0 || cols > 0xffff || rows > 0xffff {
		return fallback
	}
	return gondolin.Size{Rows: uint16(rows), Cols: uint16(cols)}
}

// followSize passes on every change of the terminal's size until stop is called.
func followSize(c *gondolin.Cmd, fd int, last gondolin.Size) (stop func()) {
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	done := make(chan struct{})
	go passSizes(c, fd, last, changes, done)
	return func() {
		signal.Stop(changes)
		close(done)
	}
}

func passSizes(c *gondolin.Cmd, fd int, last gondolin.Size, changes <-chan os.Signal, done <-chan struct{}) {
	for {
		select {
		case <-changes:
			last = terminalSize(fd, last)
			_ = c.Resize(last) // the command may be gone
		case <-done:
			return
		}
	}
}

// detachReader ends at the detach key.
type detachReader struct {
	r       io.Reader
	pressed chan struct{}
	ended   bool
}

func (d *detachReader) Read(p []byte) (int, error) {
	if d.ended {
		return 0, io.EOF
	}
	n, err := d.r.Read(p)
	if i := bytes.IndexByte(p[:n], detachKey); i >= 0 {
		d.ended = true
		close(d.pressed)
		return i, io.EOF
	}
	return n, err
}
