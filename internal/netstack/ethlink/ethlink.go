// Package ethlink is a gVisor link endpoint over a byte stream in the framing
// of QEMU's "-netdev stream": a 32-bit big-endian length, then that many bytes of
// Ethernet frame, in both directions.
package ethlink

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sync/errgroup"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// MaxFrame is the largest frame QEMU ever sends, its NET_BUFSIZE: 4 KiB
	// and 64 KiB. A longer one means the stream is no longer in step.
	MaxFrame = 4<<10 + 64<<10

	// HeaderSize is the Ethernet header: two addresses and a type.
	HeaderSize = 14

	lengthSize = 4

	// queuedFrames bounds the frames waiting for QEMU, about 6 MiB at an MTU of
	// 1500. A full queue drops, as a full network card does, and TCP sends again;
	// with send buffers of 1 MiB a connection it takes several at full speed.
	queuedFrames = 4096

	// batchSize in bytes is how much is written to the stream at once.
	batchSize = 64 << 10
)

// Config describes a Link.
type Config struct {
	MAC net.HardwareAddr
	MTU int // of the IP packet, without the Ethernet header
	// Admit reports whether a received frame of at least HeaderSize and at
	// most HeaderSize+MTU bytes may enter. It must not keep or change the frame.
	// Nil admits all.
	Admit func(frame []byte) bool
	// Received and Sent see every frame, also those that are not admitted, as it is
	// read or written. They must not keep or change it. Nil: nobody looks.
	Received, Sent func(frame []byte)
}

// Link is one end of an Ethernet cable. Run it once.
type Link struct {
	cfg   Config
	queue *channel.Endpoint
	eth   *ethernet.Endpoint
}

// New returns a link that carries nothing until Run.
func New(cfg Config) *Link {
	queue := channel.New(queuedFrames, uint32(cfg.MTU+HeaderSize), tcpip.LinkAddress(cfg.MAC)) //nolint:gosec // G115: a constant of the address plan
	return &Link{cfg: cfg, queue: queue, eth: ethernet.New(queue)}
}

// Endpoint is the side a gVisor stack attaches to.
func (l *Link) Endpoint() stack.LinkEndpoint { return l.eth }

// Run carries frames until the stream ends or ctx is done, both of which are
// no error. It owns conn and closes it.
func (l *Link) Run(ctx context.Context, conn io.ReadWriteCloser) error {
	group, inner := errgroup.WithContext(ctx)
	stop := context.AfterFunc(inner, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	group.Go(func() error { return l.read(conn) })
	group.Go(func() error { return l.write(inner, conn) })
	err := group.Wait()
	if ctx.Err() != nil || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// read delivers frames into the stack until the stream ends.
func (l *Link) read(conn io.Reader) error {
	in := bufio.NewReaderSize(conn, batchSize)
	frame := make([]byte, MaxFrame)
	for {
		n, err := ReadFrame(in, frame)
		if err != nil {
			return err
		}
		if l.cfg.Received != nil {
			l.cfg.Received(frame[:n])
		}
		if n < HeaderSize || n > HeaderSize+l.cfg.MTU || l.cfg.Admit != nil && !l.cfg.Admit(frame[:n]) {
			continue
		}
		if err := l.deliver(frame[:n]); err != nil {
			return err
		}
	}
}

// deliver turns a panic of the stack into the end of this link, so that a
// frame that finds a fault there costs one sandbox its network and no more.
func (l *Link) deliver(frame []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("cannot process a frame: the stack panicked: %v", p)
		}
	}()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
	defer pkt.DecRef()
	l.queue.InjectInbound(0, pkt) // the Ethernet layer reads the protocol itself
	return nil
}

// write sends queued frames, as many at once as are waiting.
func (l *Link) write(ctx context.Context, conn io.Writer) error {
	batch := make([]byte, 0, batchSize+lengthSize+HeaderSize+l.cfg.MTU)
	for {
		pkt := l.queue.ReadContext(ctx)
		if pkt == nil {
			return ctx.Err()
		}
		for batch = batch[:0]; pkt != nil; pkt = l.queue.Read() {
			start := len(batch) + lengthSize
			batch = appendFrame(batch, pkt)
			if l.cfg.Sent != nil {
				l.cfg.Sent(batch[start:])
			}
			pkt.DecRef()
			if len(batch) >= batchSize {
				break
			}
		}
		if _, err := conn.Write(batch); err != nil {
			return fmt.Errorf("cannot write frames: %w", err)
		}
	}
}

func appendFrame(batch []byte, pkt *stack.PacketBuffer) []byte {
	batch = binary.BigEndian.AppendUint32(batch, uint32(pkt.Size())) //nolint:gosec // G115: at most MTU and headers
	for _, part := range pkt.AsSlices() {
		batch = append(batch, part...)
	}
	return batch
}

// ReadFrame reads one frame into buf, which has at least MaxFrame bytes, and
// returns its length. The error is io.EOF only between frames; a length above
// MaxFrame is an error, since what follows it cannot be trusted to be a frame.
func ReadFrame(r io.Reader, buf []byte) (int, error) {
	if _, err := io.ReadFull(r, buf[:lengthSize]); err != nil {
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		return 0, fmt.Errorf("cannot read the length of a frame: %w", err)
	}
	n := binary.BigEndian.Uint32(buf)
	if n > MaxFrame {
		return 0, fmt.Errorf("cannot accept a frame of %d bytes: the limit is %d", n, MaxFrame)
	}
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		return 0, fmt.Errorf("cannot read a frame of %d bytes: %w", n, errNotEOF(err))
	}
	return int(n), nil
}

func errNotEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
