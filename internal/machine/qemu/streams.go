package qemu

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"gondolin/internal/machine/jail"
)

// stream is one socketpair: ours is a net.Conn with deadlines, theirs is
// inherited by QEMU and closed here once it runs.
type stream struct {
	ours   net.Conn
	theirs *os.File
}

// newStream makes a socketpair. Neither end survives an exec by accident.
func newStream(name string) (stream, error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return stream{}, fmt.Errorf("cannot make the %s socketpair: %w", name, err)
	}
	for _, fd := range fds {
		// A smaller buffer than asked for is slower, not wrong.
		_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_SNDBUF, streamBuffer)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name)
	conn, err := net.FileConn(ours) // a duplicate, close-on-exec and non-blocking
	ours.Close()
	if err != nil {
		theirs.Close()
		return stream{}, fmt.Errorf("cannot use the %s socketpair: %w", name, err)
	}
	return stream{ours: conn, theirs: theirs}, nil
}

// wiring is everything QEMU inherits, and our ends of it.
type wiring struct {
	monitor, console, control, files, network stream

	opened []*os.File // kernel, initrd, disks
	extra  []*os.File // what QEMU inherits, in order; not owned
	fds    FDs
}

// firstExtraFD is what os/exec gives the first of ExtraFiles.
const firstExtraFD = 3

// newWiring makes the streams and opens the files of m, which has its defaults, for
// a QEMU in j.
func newWiring(m Machine, j *jail.Jail) (*wiring, error) {
	w := &wiring{}
	if err := errors.Join(w.makeStreams(), w.openFiles(m, j)); err != nil {
		w.closeTheirs()
		w.closeOurs()
		return nil, err
	}
	return w, nil
}

func (w *wiring) makeStreams() error {
	for _, s := range []struct {
		name string
		to   *stream
		fd   *int
	}{
		{"qmp", &w.monitor, &w.fds.Monitor},
		{"console", &w.console, &w.fds.Console},
		{"ctl", &w.control, &w.fds.Control},
		{"fs", &w.files, &w.fds.Files},
		{"net", &w.network, &w.fds.Network},
	} {
		made, err := newStream(s.name)
		if err != nil {
			return err
		}
		*s.to = made
		*s.fd = w.pass(made.theirs)
	}
	return nil
}

func (w *wiring) openFiles(m Machine, j *jail.Jail) error {
	for _, f := range []struct {
		field, path string
		inherit     bool
		fd          *int
	}{
		{"Kernel", m.Kernel, m.HostOS == "linux", &w.fds.Kernel},
		{"Initrd", m.Initrd, m.HostOS == "linux", &w.fds.Initrd},
		{"Root", m.Root.Path, true, &w.fds.Root},
		{"RAM", m.RAM.Path, m.HostOS == "linux", &w.fds.RAM},
		{"Incoming", m.Incoming, true, &w.fds.Incoming},
	} {
		if f.path == "" || !m.boots() && (f.field == "Kernel" || f.field == "Initrd") {
			continue
		}
		file, err := openRegular(f.path)
		if err != nil {
			return fmt.Errorf("cannot use machine: %s: %w", f.field, err)
		}
		w.opened = append(w.opened, file)
		if file, err = letOpen(j, f.field, m, file); err != nil {
			return fmt.Errorf("cannot use machine: %s: %w", f.field, err)
		}
		w.opened[len(w.opened)-1] = file
		if f.inherit {
			*f.fd = w.pass(file)
		}
	}
	return nil
}

// openRegular opens a file for reading. A FIFO in its place does not block.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%q is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// pass notes that QEMU inherits f and returns the number it will have there.
func (w *wiring) pass(f *os.File) int {
	w.extra = append(w.extra, f)
	return firstExtraFD + len(w.extra) - 1
}

func (w *wiring) streams() []*stream {
	return []*stream{&w.monitor, &w.console, &w.control, &w.files, &w.network}
}

// closeTheirs closes QEMU's ends and the opened files, which QEMU has by now.
func (w *wiring) closeTheirs() {
	for _, s := range w.streams() {
		if s.theirs != nil {
			s.theirs.Close()
		}
	}
	for _, f := range w.opened {
		f.Close()
	}
}

// closeOurs ends every pending Read and Write of the host.
func (w *wiring) closeOurs() {
	for _, s := range w.streams() {
		if s.ours != nil {
			s.ours.Close()
		}
	}
}
