// Package machine is the seam between a virtual machine and everything that
// controls it. A machine is a lifecycle and three byte streams; policy, secrets,
// file providers and the network stack sit above this interface and do not know
// where the machine runs. Package qemu runs one as a local process; a bridge can
// carry the same three streams over one connection to another host.
//
// The streams end in hostile hands. Whoever reads from them bounds every length,
// count and id, and sets deadlines: a guest that does not read blocks a writer
// for as long as it likes, and bytes written before the guest has opened its end
// wait in a buffer of bounded size.
package machine

import (
	"context"
	"net"
)

// The names of the two virtio-serial ports, as the guest finds them in
// /sys/class/virtio-ports/*/name.
const (
	// ControlPort carries the control channel, see Machine.Control.
	ControlPort = "ctl"
	// FilesPort carries the FUSE protocol, see Machine.Files.
	FilesPort = "fs"
)

// Machine is one running virtual machine. It owns its three streams: all of them
// are closed when the machine ends, so that every pending Read and Write fails at
// once, and closing a stream does not end the machine.
//
// All methods may be called from several goroutines.
type Machine interface {
	// Control returns the stream to the guest's "ctl" port: plain bytes, no framing.
	Control() net.Conn

	// Files returns the stream to the guest's "fs" port: plain bytes, no framing.
	Files() net.Conn

	// Network returns the other end of the guest's network card. Each Ethernet
	// frame is preceded by its length as a big-endian uint32, in both directions.
	Network() net.Conn

	// Done is closed when the machine is gone: its process reaped, its streams closed.
	Done() <-chan struct{}

	// Err says why the machine ended, once Done is closed: nil if Close ended it,
	// otherwise an *ExitError. Before that it is nil.
	Err() error

	// Console returns a copy of the last part of what the guest wrote to its
	// console, as the guest wrote it: pass it through Sanitize before a person sees it.
	Console() []byte

	// Close kills the machine and returns when it is gone, or with an error after
	// a few seconds if it cannot be killed. It may be called any number of times.
	Close() error
}

// Pauser is implemented by machines that can stand still.
type Pauser interface {
	// Pause stops the machine's processors; its memory and its streams stay. Resume
	// lets them run. Both are idempotent.
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
}
