//go:build linux

package execd

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"gondolin/internal/guest/reap"
	"gondolin/internal/rpc"
	"gondolin/internal/wire"

	"golang.org/x/sys/unix"
)

// maxRemovals bounds how many cgroups the end of one command tries to remove: each
// costs microseconds, and left-over ones come one a command.
const maxRemovals = 16

// command is one running command.
type command struct {
	log    *slog.Logger
	proc   *reap.Process
	stdin  *os.File    // our end of the pipe, or the terminal; nil without a stream
	output [2]*os.File // our ends of stdout's and stderr's pipes; [0] may be the terminal
	tty    *os.File    // the terminal's master; nil without one
	cgroup string      // "" without one

	pumps []*outputPump
	done  sync.WaitGroup // the input pump
}

// open makes the command's descriptors. The files it returns are the child's,
// 0 to 2, to be closed by the caller once the child has them.
func (c *command) open(req *wire.Exec) ([]*os.File, error) {
	if req.TTY != nil {
		return c.openTerminal(*req.TTY)
	}
	var files []*os.File
	for i, d := range descriptors {
		child, err := c.openDescriptor(i, d, req, files)
		if err != nil {
			return files, fmt.Errorf("cannot make descriptor %d: %w", i, err)
		}
		files = append(files, child)
	}
	return files, nil
}

func (c *command) openDescriptor(i int, d wire.Descriptors, req *wire.Exec, before []*os.File) (*os.File, error) {
	switch {
	case req.Streams&d == 0 && d == wire.Stderr && req.Joined:
		return duplicate(before[1])
	case req.Streams&d == 0:
		return os.OpenFile(os.DevNull, os.O_RDWR, 0)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	if d == wire.Stdin {
		c.stdin = w
		return r, nil
	}
	c.output[i-1] = r
	return w, nil
}

func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func (c *command) openTerminal(size wire.Size) ([]*os.File, error) {
	master, slave, err := openPTY(size)
	if err != nil {
		return nil, fmt.Errorf("cannot make a terminal: %w", err)
	}
	c.tty, c.stdin, c.output[0] = master, master, master
	files := []*os.File{slave}
	for range 2 {
		f, err := duplicate(slave)
		if err != nil {
			return files, fmt.Errorf("cannot make a terminal: %w", err)
		}
		files = append(files, f)
	}
	return files, nil
}

// pump starts moving bytes between the streams and the process.
func (c *command) pump(data *attachments) {
	for i, d := range descriptors[1:] {
		if stream := data.take(d); stream != nil {
			p := &outputPump{src: c.output[i], dst: stream, done: make(chan struct{})}
			c.pumps = append(c.pumps, p)
			go p.run()
		}
	}
	if stream := data.take(wire.Stdin); stream != nil {
		c.done.Add(1)
		go c.pumpInput(stream)
	}
}

// control carries out what the host asks until it closes the stream. If the
// command still runs then, the host has given it up; but in a copy of the guest
// it goes on, and nobody asks for anything.
func (c *command) control(ctl *rpc.Stream) {
	for {
		m, err := wire.Read(ctl, wire.ToGuest)
		if err != nil {
			if !ctl.Replaced() {
				c.abandon()
			}
			return
		}
		switch m := m.(type) {
		case *wire.Signal:
			c.signal(syscall.Signal(m.Number))
		case *wire.Resize:
			c.resize(m.Size)
		case *wire.Terminate:
			go c.terminate(m.Grace)
		default:
			c.log.Debug("ignored message on an exec stream", "kind", fmt.Sprintf("%T", m))
		}
	}
}

func (c *command) signal(sig syscall.Signal) {
	if err := c.proc.Signal(sig); err != nil {
		c.log.Debug("cannot signal", "signal", sig, "error", err)
	}
}

func (c *command) resize(size wire.Size) {
	if c.tty == nil {
		return
	}
	if err := setSize(c.tty, size); err != nil {
		c.log.Debug("cannot resize", "error", err)
	}
}

// terminate asks, waits, and then kills whatever is left of the command.
func (c *command) terminate(grace time.Duration) {
	c.signal(syscall.SIGTERM)
	if grace > 0 {
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-c.proc.Done():
		case <-t.C:
		}
	}
	c.kill()
}

// abandon kills a command the host no longer waits for. One that has exited may
// have left processes behind on purpose; they live on.
func (c *command) abandon() {
	select {
	case <-c.proc.Done():
	default:
		c.kill()
	}
}

// kill ends every process of the command, those that left its session included
// where there is a cgroup.
func (c *command) kill() {
	c.signal(syscall.SIGKILL)
	if c.cgroup == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(c.cgroup, "cgroup.kill"), []byte("1"), 0); err != nil {
		c.log.Debug("cannot kill the command's cgroup", "error", err)
	}
}

// drain waits for the output to end, delay at most after the command's own
// end, and reports whether other processes still held it open then.
func (c *command) drain(delay time.Duration) (cut bool) {
	deadline := time.Now().Add(delay)
	for _, p := range c.pumps {
		p.finishBy(deadline)
	}
	for _, p := range c.pumps {
		<-p.done
		cut = cut || p.cut
	}
	return cut
}

// close releases what the command holds. Processes it left behind live on, and
// their cgroup with them.
func (c *command) close() {
	for _, f := range append(c.output[:], c.stdin) {
		if f != nil {
			f.Close()
		}
	}
	c.done.Wait()
}

// close closes c and removes its cgroup, and those of commands before it whose
// last process has ended since.
func (s *Server) close(c *command) {
	c.close()
	if c.cgroup == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = append(s.left, c.cgroup)
	for range min(len(s.left), maxRemovals) {
		last := len(s.left) - 1
		path := s.left[last]
		s.left = s.left[:last]
		if err := os.Remove(path); errors.Is(err, unix.EBUSY) { // something in it lives
			s.left = slices.Insert(s.left, 0, path)
		}
	}
}

func (s *Server) cgroupPath() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups++
	return filepath.Join(s.Cgroups, "exec-"+strconv.Itoa(s.groups))
}

// makeCgroup makes the command's cgroup and opens it for the child to start in.
func (c *command) makeCgroup(path string) (*os.File, error) {
	if err := os.Mkdir(path, 0o755); err != nil { //nolint:gosec // cgroup files are world-readable everywhere
		return nil, fmt.Errorf("cannot make a cgroup: %w", err)
	}
	c.cgroup = path
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open the command's cgroup: %w", err)
	}
	return dir, nil
}
