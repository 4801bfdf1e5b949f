package tests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gondolin/internal/vmtest"
)

// terminal is a pseudo-terminal with a person at it.
type terminal struct {
	t      *testing.T
	master *os.File
	seen   strings.Builder
}

// newTerminal returns a terminal and the end a program gets.
func newTerminal(t *testing.T) (*terminal, *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	term := &terminal{t: t, master: master}
	var number int
	term.control(func(fd int) error {
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return errors.Join(err, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	})
	term.resize(30, 100)
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return term, slave
}

func (term *terminal) control(ioctl func(fd int) error) {
	term.t.Helper()
	raw, err := term.master.SyscallConn()
	if err != nil {
		term.t.Fatal(err)
	}
	var ierr error
	if err := raw.Control(func(fd uintptr) { ierr = ioctl(int(fd)) }); err != nil || ierr != nil {
		term.t.Fatal(err, ierr)
	}
}

func (term *terminal) resize(rows, cols uint16) {
	term.t.Helper()
	term.control(func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
}

func (term *terminal) send(keys string) {
	term.t.Helper()
	if _, err := term.master.WriteString(keys); err != nil {
		term.t.Fatal(err)
	}
}

// until reads until text has been written to the terminal, and forgets what came before.
func (term *terminal) until(text string) {
	term.t.Helper()
	if err := term.master.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		term.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for !strings.Contains(term.seen.String(), text) {
		n, err := term.master.Read(buf)
		if err != nil {
			term.t.Fatalf("%v before %q in %q", err, text, term.seen.String())
		}
		term.seen.Write(buf[:n])
	}
	_, rest, _ := strings.Cut(term.seen.String(), text)
	term.seen.Reset()
	term.seen.WriteString(rest)
}

// A person at a terminal: size and resize, Ctrl-C, Ctrl-], and a terminal left as it was.
func TestBashAtATerminal(t *testing.T) {
	vmtest.Needs(t)
	term, slave := newTerminal(t)
	before := attributes(t, slave)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "bash", "--env", "PS1=ready> ")
	cmd.Env = append(os.Environ(), beGondolin+"=1", "TERM=xterm-ghostty")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	term.send("export PS1='at your'' service '\r")
	term.until("at your service ")
	term.send("stty size; echo $TERM\r")
	term.until("30 100\r\nxterm-256color\r\n")
	term.send("sleep 1000; echo over=$?\r")
	term.until("over=$?\r\n")
	waitForSleep(term)
	term.send("\x03")
	term.until("at your service ")
	term.send("echo after=$?\r")
	term.until("after=130\r\n")
	term.resize(20, 80)
	term.send("for i in $(seq 100); do stty size; sleep 0.1; done | grep -m1 80\r")
	term.until("20 80\r\n")
	term.send("\x1d")
	term.until("detached")
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 130 {
		t.Errorf("%v", err)
	}
	if after := attributes(t, slave); after != before {
		t.Errorf("the terminal was left as %s, not %s", after, before)
	}
	slave.Close()
}

// waitForSleep gives the guest's shell the moment it needs to start what was
// typed: a Ctrl-C before that would be the shell's own.
func waitForSleep(term *terminal) {
	term.t.Helper()
	timer := time.NewTimer(500 * time.Millisecond)
	defer timer.Stop()
	<-timer.C
}

func attributes(t *testing.T, tty *os.File) string {
	t.Helper()
	a, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%+v", *a)
}
