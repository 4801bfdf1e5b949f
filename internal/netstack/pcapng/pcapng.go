// Package pcapng writes the frames on a guest's cable in the capture format that
// Wireshark and tcpdump read (draft-ietf-opsawg-pcapng): one section, one
// interface, and a packet block with its direction for every frame.
package pcapng

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	// MaxSize in bytes is what one Writer writes at most, since the guest decides
	// how much there is to capture.
	MaxSize = 1 << 30

	blockSection   = 0x0a0d0d0a // section 4.1
	blockInterface = 1          // section 4.2
	blockPacket    = 6          // section 4.3

	byteOrder    = 0x1a2b3c4d
	linkEthernet = 1

	optionEnd        = 0
	optionResolution = 9 // if_tsresol
	optionFlags      = 2 // epb_flags
	nanoseconds      = 9 // 10^-9

	inbound  = 1 // epb_flags, as the guest's card sees it
	outbound = 2
)

var errFull = errors.New("cannot capture more: the limit is reached")

// Writer writes a capture. Its methods may be called concurrently, and do nothing
// on a nil Writer. When a write fails or MaxSize is reached, it says so once in
// the log and captures no more; whoever sends the frames does not notice.
type Writer struct {
	logger *slog.Logger

	mu    sync.Mutex // guards the fields below
	out   io.Writer  // nil: no more
	left  int
	begun bool
	block []byte
}

// NewWriter returns a Writer to out, which gets whole blocks, the header before
// the first frame. Several Writers may so share an out that takes concurrent
// writes. A nil out gives a nil Writer. The caller closes out when the Writer is
// no longer called.
func NewWriter(out io.Writer, logger *slog.Logger) *Writer {
	if out == nil {
		return nil
	}
	return &Writer{logger: logger, out: out, left: MaxSize}
}

// FromGuest captures a frame that the guest sent.
func (w *Writer) FromGuest(frame []byte) { w.write(frame, outbound) }

// ToGuest captures a frame that the guest receives.
func (w *Writer) ToGuest(frame []byte) { w.write(frame, inbound) }

func (w *Writer) write(frame []byte, flags uint32) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.out == nil {
		return
	}
	w.block = w.block[:0]
	if !w.begun {
		w.block = appendHeader(w.block)
	}
	w.block = appendPacket(w.block, time.Now(), frame, flags)
	if err := w.flush(); err != nil {
		w.out, w.block = nil, nil
		w.logger.Warn("the capture of the network ends here", "error", err)
		return
	}
	w.begun = true
}

// flush writes the block, without letting a faulty writer panic into the link.
func (w *Writer) flush() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("cannot capture: the writer panicked: %v", p)
		}
	}()
	if len(w.block) > w.left {
		return errFull
	}
	w.left -= len(w.block)
	n, err := w.out.Write(w.block)
	if err == nil && n < len(w.block) {
		err = io.ErrShortWrite
	}
	return err
}

// appendHeader appends the section header and the interface description.
func appendHeader(b []byte) []byte {
	le := binary.LittleEndian
	b = appendBlock(b, blockSection, func(b []byte) []byte {
		b = le.AppendUint32(b, byteOrder)
		b = le.AppendUint16(b, 1)                     // major version
		b = le.AppendUint16(b, 0)                     // minor version
		return le.AppendUint64(b, 0xffffffffffffffff) // length not given
	})
	return appendBlock(b, blockInterface, func(b []byte) []byte {
		b = le.AppendUint16(b, linkEthernet)
		b = le.AppendUint16(b, 0) // reserved
		b = le.AppendUint32(b, 0) // frames are never cut
		b = append(le.AppendUint16(le.AppendUint16(b, optionResolution), 1), nanoseconds, 0, 0, 0)
		return le.AppendUint32(b, optionEnd)
	})
}

// appendPacket appends an enhanced packet block.
func appendPacket(b []byte, at time.Time, frame []byte, flags uint32) []byte {
	le := binary.LittleEndian
	return appendBlock(b, blockPacket, func(b []byte) []byte {
		stamp := uint64(at.UnixNano())
		size := uint32(len(frame)) //nolint:gosec // G115: at most ethlink.MaxFrame
		b = le.AppendUint32(b, 0)  // the interface
		b = le.AppendUint32(b, uint32(stamp>>32))
		b = le.AppendUint32(b, uint32(stamp&(1<<32-1)))
		b = le.AppendUint32(le.AppendUint32(b, size), size)
		b = append(b, frame...)
		b = append(b, make([]byte, -len(frame)&3)...)
		b = le.AppendUint16(le.AppendUint16(b, optionFlags), 4)
		b = le.AppendUint32(b, flags)
		return le.AppendUint32(b, optionEnd)
	})
}

// appendBlock appends a block, whose length stands before and after its body.
func appendBlock(b []byte, kind uint32, body func([]byte) []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, kind)
	b = body(append(b, 0, 0, 0, 0))
	size := uint32(len(b) - start + 4) //nolint:gosec // G115: a frame and its headers
	binary.LittleEndian.PutUint32(b[start+4:], size)
	return binary.LittleEndian.AppendUint32(b, size)
}
