//go:build linux

// Package execd runs commands in the guest: it turns an Exec request and its
// data streams into a process, moves the bytes, delivers signals, and reports
// the end. Its host twin is package control.
package execd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"gondolin/internal/guest/reap"
	"gondolin/internal/rpc"
	"gondolin/internal/wire"
)

// attachTimeout bounds the wait for a command's data streams.
const attachTimeout = time.Minute

// Server runs commands. Its fields are set before the first request.
type Server struct {
	Reaper *reap.Reaper
	Log    *slog.Logger
	// Cgroups is a cgroup v2 directory under which each command gets a group
	// of its own, so that all of its processes can be killed. Empty: only its
	// process group is.
	Cgroups string

	mu      sync.Mutex
	env     []string // "K=V", base environment of every command
	waiting map[uint64]*attachments
	groups  int      // counts commands, to name their cgroups
	left    []string // cgroups that could not be removed: something in them lived on
}

// SetEnv sets the base environment of commands started from now on.
func (s *Server) SetEnv(env []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.env = env
}

// Exec serves an exec stream (package wire, section 5), which it owns.
func (s *Server) Exec(ctx context.Context, req *wire.Exec, ctl *rpc.Stream) {
	defer ctl.Abort()
	data, err := s.collect(ctx, req)
	defer data.close()
	if err != nil {
		s.reply(ctl, wire.Failure(wire.ReasonOther, err.Error()))
		return
	}
	c, err := s.start(req, data)
	if err != nil {
		s.reply(ctl, asFailure(err))
		return
	}
	defer s.close(c)
	s.reply(ctl, &wire.Started{PID: c.proc.PID()})
	go c.control(ctl)
	<-c.proc.Done()
	s.reply(ctl, exitMessage(c.proc.Status()))
	s.reply(ctl, &wire.Drained{Cut: c.drain(req.WaitDelay)})
}

// reply sends m; a host that is gone needs no answer, so a failure is only logged.
func (s *Server) reply(ctl *rpc.Stream, m wire.Message) {
	if err := wire.Write(ctl, m); err != nil {
		s.Log.Debug("cannot answer", "error", err)
	}
}

// start makes the process. On success the command owns its ends of the streams.
func (s *Server) start(req *wire.Exec, data *attachments) (*command, error) {
	plan, err := s.plan(req)
	if err != nil {
		return nil, err
	}
	c := &command{log: s.Log}
	if err := c.launch(s, req, plan); err != nil {
		s.close(c)
		return nil, err
	}
	c.pump(data)
	return c, nil
}

// launch makes the descriptors and the process.
func (c *command) launch(s *Server, req *wire.Exec, plan *plan) error {
	files, err := c.open(req)
	defer func() { closeAll(files) }()
	if err != nil {
		return err
	}
	attr := &syscall.ProcAttr{Dir: plan.dir, Env: plan.env, Sys: &syscall.SysProcAttr{
		Setsid: true, Setctty: req.TTY != nil, Credential: plan.credential,
	}}
	for i, f := range files {
		if req.Streams&descriptors[i] != 0 || req.TTY != nil {
			if err := plan.own(f); err != nil {
				return err
			}
		}
		attr.Files = append(attr.Files, f.Fd())
	}
	if s.Cgroups != "" {
		dir, err := c.makeCgroup(s.cgroupPath())
		if err != nil {
			return err
		}
		defer dir.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(dir.Fd()) // clone3's CLONE_INTO_CGROUP
	}
	c.proc, err = s.Reaper.Start(plan.path, plan.args, attr)
	if err != nil {
		return startError(plan, err)
	}
	return nil
}

// own gives a pipe or terminal to the command's user, who can otherwise not
// open it by name: /dev/stderr, or what tty(1) prints.
func (p *plan) own(f *os.File) error {
	if p.credential == nil {
		return nil
	}
	const sameGroup = -1 // a terminal's is tty
	if err := f.Chown(int(p.credential.Uid), sameGroup); err != nil {
		return fmt.Errorf("cannot give the command its descriptors: %w", err)
	}
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// startError explains an execve(2) failure.
func startError(p *plan, err error) error {
	name := p.args[0]
	switch {
	case errors.Is(err, syscall.ENOENT):
		return wire.Failure(wire.ReasonNotFound, fmt.Sprintf("cannot run %q: the interpreter it names does not exist", name))
	case errors.Is(err, syscall.E2BIG):
		return wire.Failure(wire.ReasonTooLarge, fmt.Sprintf("cannot run %q: arguments and environment are too long", name))
	case errors.Is(err, syscall.ENOEXEC):
		return wire.Failure(wire.ReasonNotExecutable, fmt.Sprintf("cannot run %q: not a program this machine can execute", name))
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return wire.Failure(wire.ReasonNotExecutable, fmt.Sprintf("cannot run %q: permission denied", name))
	default:
		return fmt.Errorf("cannot run %q: %w", name, err)
	}
}

func asFailure(err error) *wire.Failed {
	if f, ok := errors.AsType[*wire.Failed](err); ok {
		return f
	}
	return wire.Failure(wire.ReasonOther, err.Error())
}

func exitMessage(status syscall.WaitStatus) *wire.Exited {
	if status.Signaled() {
		return &wire.Exited{Signal: int(status.Signal())}
	}
	return &wire.Exited{Code: status.ExitStatus()}
}
