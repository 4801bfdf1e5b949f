//go:build linux

package execd

import (
	"errors"
	"io"
	"os"
	"time"

	"gondolin/internal/rpc"

	"golang.org/x/sys/unix"
)

const (
	chunk = 64 << 10 // bytes moved at once, and what a pipe holds by default (pipe(7))
	// eot is what a terminal in canonical mode takes for end of input (VEOF, termios(3)).
	eot = 4
)

// outputPump moves a command's output to the host.
type outputPump struct {
	src *os.File    // pipe or terminal master; the pump's owner closes it
	dst *rpc.Stream // the pump closes it

	done chan struct{}
	cut  bool // output was still open at the deadline; valid after done
}

func (p *outputPump) run() {
	defer close(p.done)
	defer func() { _ = p.dst.Close() }() // fails only if the channel has ended
	go p.watch()
	buf := make([]byte, chunk)
	for {
		n, err := p.src.Read(buf)
		if n > 0 && !p.send(buf[:n]) {
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.cut = p.flush(buf)
			return
		}
		if err != nil { // EOF; EIO from a terminal nobody has open any more
			return
		}
	}
}

// send hands b to the host, and reports whether the output goes on. In a copy of
// the guest there is nobody to hand it to, and the command must not notice.
func (p *outputPump) send(b []byte) bool {
	_, err := p.dst.Write(b)
	return err == nil || p.dst.Replaced()
}

// watch ends the output when the host stops reading it: closing our end gives
// the command the broken pipe it would get from any reader that left.
func (p *outputPump) watch() {
	_, _ = io.Copy(io.Discard, p.dst)
	if p.dst.Replaced() {
		return
	}
	select {
	case <-p.done:
	default:
		p.src.Close()
	}
}

// finishBy makes reads fail from deadline on.
func (p *outputPump) finishBy(deadline time.Time) { _ = p.src.SetReadDeadline(deadline) }

// flush sends what lies in the pipe after the deadline. All that was written
// before the command's end is among its first chunk bytes, since a pipe holds
// no more. It reports whether the output is still open after that.
func (p *outputPump) flush(buf []byte) (open bool) {
	_ = p.src.SetReadDeadline(time.Time{})
	raw, err := p.src.SyscallConn()
	if err != nil {
		return true
	}
	for left := chunk; left > 0; {
		n, err := readNow(raw, buf[:min(left, len(buf))])
		if n <= 0 || err != nil {
			return errors.Is(err, unix.EAGAIN)
		}
		if !p.send(buf[:n]) {
			return true
		}
		left -= n
	}
	return true
}

// readNow reads without waiting.
func readNow(raw interface {
	Read(func(fd uintptr) bool) error
}, buf []byte,
) (n int, err error) {
	rerr := raw.Read(func(fd uintptr) bool {
		n, err = unix.Read(int(fd), buf)
		return true
	})
	return n, errors.Join(err, rerr)
}

// pumpInput moves the host's bytes to the command until either side has had enough.
func (c *command) pumpInput(stream *rpc.Stream) {
	defer c.done.Done()
	copied := make(chan struct{})
	go func() {
		c.copyInput(stream)
		close(copied)
	}()
	select {
	case <-copied:
	case <-c.proc.Done():
	}
	stream.Abort() // tells the host to stop; discards what is under way
}

func (c *command) copyInput(stream *rpc.Stream) {
	_, err := io.CopyBuffer(onlyWriter{c.stdin}, stream, make([]byte, chunk))
	switch {
	case c.tty == nil:
		c.stdin.Close()
	case err == nil && !stream.Replaced(): // a terminal that nobody is at any more stays open
		_, _ = c.tty.Write([]byte{eot})
	}
}

// onlyWriter hides os.File's ReadFrom, which would splice from a socket the
// stream is not.
type onlyWriter struct{ io.Writer }
