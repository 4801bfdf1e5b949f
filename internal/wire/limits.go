package wire

import "time"

// Version is the protocol's version; host and guest must agree exactly.
const Version = 2

// Names of the virtio-serial ports, as QEMU sets them and the guest finds them
// in /sys/class/virtio-ports/*/name.
const (
	PortControl = "ctl" // this protocol
	PortFiles   = "fs"  // FUSE messages, verbatim
)

const (
	// MaxToGuest bounds one message to the guest, in bytes: room for the
	// 2 MiB of arguments and environment that Linux allows by default (a
	// quarter of an 8 MiB stack) and its encoding.
	MaxToGuest = 4 << 20
	// MaxToHost bounds one message from the guest, in bytes: the largest
	// honest one is a Failed text with a path in it.
	MaxToHost = 64 << 10
	// MaxArgs bounds arguments, and environment entries, of one command.
	MaxArgs = 64 << 10
	// MaxMounts bounds the mounts of one VM.
	MaxMounts = 1024
	// MaxWaitDelay bounds [Exec.WaitDelay] and [Terminate.Grace].
	MaxWaitDelay = 24 * time.Hour

	maxNesting  = 6           // Setup -> Mounts -> Mount, with room
	maxElements = MaxArgs + 1 // the longest array of any message
	maxText     = 4 << 10     // a Failed text, in bytes
)
