//go:build linux

// Package guest is the agent: PID 1 of the VM. It boots the root image, waits
// for the host's setup, and then runs what the host asks for. It runs as root
// beside hostile code, so the host believes nothing it says; it believes the host.
package guest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"

	"gondolin/internal/guest/boot"
	"gondolin/internal/guest/execd"
	"gondolin/internal/guest/reap"
	"gondolin/internal/guest/setup"
	"gondolin/internal/rpc"
	"gondolin/internal/wire"

	"golang.org/x/sys/unix"
)

// Main is the whole life of the guest. It returns only when the guest cannot go on.
func Main(ctx context.Context, log *slog.Logger) error {
	var timeline boot.Timeline
	if err := boot.Run(log, &timeline); err != nil {
		return err
	}
	reaper := new(reap.Reaper)
	a := &agent{
		log:      log,
		timeline: &timeline,
		ready:    make(chan struct{}),
		exec:     execd.Server{Reaper: reaper, Log: log, Cgroups: boot.Cgroups},
	}
	port, err := boot.OpenPort(wire.PortControl)
	if err != nil {
		return err
	}
	timeline.Mark("control port")
	failed := make(chan error, 2)
	go func() { failed <- reaper.Run(ctx) }()
	go func() { failed <- rpc.Serve(ctx, port, a.serve) }()
	return <-failed
}

// PowerOff ends the VM, and QEMU with it.
func PowerOff() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) }

// agent serves the host's streams.
type agent struct {
	log      *slog.Logger
	timeline *boot.Timeline
	exec     execd.Server

	prepared setup.Prepared
	setUp    sync.Once
	ready    chan struct{} // closed after a successful setup

	suspended sync.Mutex // held while the commands and their files stand still
}

// serve dispatches a stream by its first message. All but setup wait for setup.
func (a *agent) serve(ctx context.Context, first wire.Message, s *rpc.Stream) {
	switch m := first.(type) {
	case *wire.Setup:
		a.serveSetup(m, s)
		return
	case *wire.Quiesce:
		a.quiesce(m, s)
		return
	}
	select {
	case <-a.ready:
	case <-ctx.Done():
		s.Abort()
		return
	}
	switch m := first.(type) {
	case *wire.Exec:
		a.exec.Exec(ctx, m, s)
	case *wire.Attach:
		a.exec.Attach(ctx, m, s)
	case *wire.Clock:
		a.setClock(m, s)
	case *wire.Suspend:
		a.suspend(ctx, s)
	case *wire.Resume:
		a.resume(m, s)
	default:
		a.reply(s, wire.Failure(wire.ReasonOther, fmt.Sprintf("cannot serve a stream that begins with %T", first)))
		s.Abort()
	}
}

func (a *agent) serveSetup(m *wire.Setup, s *rpc.Stream) {
	defer s.Abort()
	if m.Version != wire.Version {
		a.reply(s, wire.Failure(wire.ReasonVersion, fmt.Sprintf(
			"cannot set up: the host speaks protocol version %d, the guest %d", m.Version, wire.Version)))
		return
	}
	var answer wire.Message = wire.Failure(wire.ReasonOther, "cannot set up: it has been done before")
	a.setUp.Do(func() { answer = a.apply(m) })
	a.reply(s, answer)
}

// quiesce answers when everything the host sent has arrived. What follows is
// another VM's life, whose timeline begins anew.
func (a *agent) quiesce(m *wire.Quiesce, s *rpc.Stream) {
	defer s.Close()
	if n, err := io.Copy(io.Discard, s); n > 0 || err != nil {
		return
	}
	a.rehearse()
	if err := a.prepared.Prepare(m); err != nil {
		a.reply(s, wire.Failure(wire.ReasonOther, err.Error()))
		return
	}
	a.timeline.Restart()
	a.reply(s, &wire.Quiesced{})
}

func (a *agent) setClock(m *wire.Clock, s *rpc.Stream) {
	defer s.Abort()
	if err := setup.SetClock(m.Time); err != nil {
		a.reply(s, wire.Failure(wire.ReasonOther, "cannot set the clock: "+err.Error()))
	}
}

func (a *agent) apply(m *wire.Setup) wire.Message {
	applied, err := setup.Apply(a.log, m, &a.prepared, boot.OpenPort, a.timeline.Mark)
	if err != nil {
		return wire.Failure(wire.ReasonOther, err.Error())
	}
	a.exec.SetEnv(applied.Env)
	close(a.ready)
	return &wire.Ready{Version: wire.Version, Kernel: kernelRelease(), Steps: a.timeline.Steps}
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func (a *agent) reply(s *rpc.Stream, m wire.Message) {
	if err := wire.Write(s, m); err != nil {
		a.log.Debug("cannot answer", "error", err)
	}
}
