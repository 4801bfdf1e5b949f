package fusepump

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Run copies requests from dev to port and replies from port to dev until the mount is gone (nil) or one of them
// fails, and returns when both directions have ended. dev stays open and mounted, so that Run can be called again
// with another port. A request that was on its way when the port failed is lost, and its caller in the guest waits
// until the mount is aborted. To end the reading of port, Run sets its deadline if it has one, and otherwise closes it
// if it can be closed: either way port is not usable any more. gate, which must be new, can hold it.
func Run(dev *os.File, port io.ReadWriter, gate *Gate) error {
	gate.open(port)
	ends := make(chan error, 2)
	go func() { ends <- pumpRequests(dev, requests{port, gate}) }()
	go func() { ends <- pumpReplies(port, replies{dev, gate}) }()
	first := <-ends
	interrupt(dev)
	interrupt(port)
	<-ends //nolint:errcheck // the other's is a consequence
	if err := dev.SetDeadline(time.Time{}); err != nil && !errors.Is(err, os.ErrClosed) && first == nil {
		return fmt.Errorf("cannot reset FUSE device: %w", err)
	}
	if errors.Is(first, unix.ENODEV) {
		return nil
	}
	return first
}

// interrupt ends calls that wait on one end.
func interrupt(end any) {
	if d, ok := end.(interface{ SetDeadline(t time.Time) error }); ok && d.SetDeadline(time.Unix(1, 0)) == nil {
		return
	}
	if c, ok := end.(io.Closer); ok {
		c.Close()
	}
}

// pumpRequests copies from the device: one read is one request.
func pumpRequests(dev io.Reader, port io.Writer) error {
	buf := make([]byte, bufferSize)
	for {
		n, err := dev.Read(buf)
		switch {
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue // the request was interrupted before it was read
		case err != nil:
			return fmt.Errorf("cannot read FUSE request: %w", unmounted(dev, err))
		case n < requestHeader || binary.LittleEndian.Uint32(buf) != uint32(n): //nolint:gosec // G115: at most bufferSize.
			return fmt.Errorf("cannot forward FUSE request of %d bytes: its header disagrees", n)
		}
		if _, err := port.Write(buf[:n]); err != nil {
			return fmt.Errorf("cannot send FUSE request: %w", err)
		}
	}
}

// unmounted returns ENODEV if that is why reading failed. Linux signals the end of a mount as EPOLLERR, which Go's poller
// reports as a file that cannot be polled; the device itself says what it is.
func unmounted(dev io.Reader, err error) error {
	f, ok := dev.(*os.File)
	if !ok || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, os.ErrClosed) {
		return err
	}
	raw, rawErr := f.SyscallConn()
	if rawErr != nil {
		return err
	}
	ask := func(fd uintptr) {
		// Poll does not take a request that may be waiting, as a read would.
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // G115: a descriptor.
		if _, pollErr := unix.Poll(fds, 0); pollErr == nil && fds[0].Revents&unix.POLLERR != 0 {
			err = unix.ENODEV
		}
	}
	if rawErr := raw.Control(ask); rawErr != nil {
		return err
	}
	return err
}

// pumpReplies copies to the device: one reply is one write.
func pumpReplies(port io.Reader, dev io.Writer) error {
	buf := make([]byte, bufferSize)
	for {
		if _, err := io.ReadFull(port, buf[:replyHeader]); err != nil {
			return fmt.Errorf("cannot receive FUSE reply: %w", err)
		}
		size := binary.LittleEndian.Uint32(buf)
		if size < replyHeader || size > bufferSize {
			return fmt.Errorf("cannot forward FUSE reply of %d bytes", size)
		}
		if _, err := io.ReadFull(port, buf[replyHeader:size]); err != nil {
			return fmt.Errorf("cannot receive FUSE reply: %w", err)
		}
		_, err := dev.Write(buf[:size])
		switch {
		case errors.Is(err, unix.ENODEV):
			return unix.ENODEV
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EINTR):
			// The request was interrupted and nobody waits for it, or the kernel refuses this one reply: the mount goes on.
		case err != nil:
			return fmt.Errorf("cannot write FUSE reply: %w", err)
		}
	}
}
