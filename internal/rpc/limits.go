package rpc

import "time"

const (
	// window is the most a stream buffers at its receiver, in bytes. It is
	// yamux's smallest and enough to keep a virtio-serial port busy.
	window = 256 << 10
	// MaxStreams bounds the streams open at once, and with window what a guest can
	// make the host hold: 512 MiB, since a buffer grows to up to twice its content.
	// A command takes up to four.
	MaxStreams = 1024
	// writeTimeout ends a write of the host that the guest does not take from the
	// port. The receiver always has room for what flow control let through, so a
	// healthy one takes it at once.
	writeTimeout = time.Minute
	// guestWriteTimeout is the guest's, for which the host is trusted: for ever. A
	// host program that is stopped (Ctrl-Z) and continued loses no output.
	guestWriteTimeout = 10 * 365 * 24 * time.Hour
	// headTimeout bounds how long an opened stream may go without its first message.
	headTimeout = time.Minute
)
