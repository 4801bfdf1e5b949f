package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

// ErrProtocol is wrapped by every error that is the peer's violation of this
// protocol rather than a failure of the stream.
var ErrProtocol = errors.New("control protocol violation")

// ErrTooLarge is returned by [Write] for a message over its limit.
var ErrTooLarge = errors.New("message too large")

// Direction says which way messages travel.
type Direction uint8

// Directions.
const (
	ToGuest Direction = iota
	ToHost
)

func (d Direction) limit() int {
	if d == ToGuest {
		return MaxToGuest
	}
	return MaxToHost
}

func (k Kind) direction() Direction {
	if k&0x80 == 0 {
		return ToGuest
	}
	return ToHost
}

var encMode, decMode = modes()

// modes builds the two CBOR modes; their options are constants, so an error is
// a fault of this file.
func modes() (cbor.EncMode, cbor.DecMode) {
	enc, err := cbor.EncOptions{Sort: cbor.SortNone, IndefLength: cbor.IndefLengthForbidden}.EncMode()
	if err != nil {
		panic(err)
	}
	dec, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		MaxNestedLevels:   maxNesting,
		MaxArrayElements:  maxElements,
		MaxMapPairs:       maxElements,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8RejectInvalid,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return enc, dec
}

// Write sends m to w in one call of w.Write. A message that the other side
// would refuse is refused here, before a byte is sent.
func Write(w io.Writer, m Message) error {
	if err := m.check(); err != nil {
		return fmt.Errorf("cannot send %T: %w", m, err)
	}
	body, err := encMode.Marshal(m)
	if err != nil {
		return fmt.Errorf("cannot encode %T: %w", m, err)
	}
	if limit := m.kind().direction().limit(); len(body)+1 > limit {
		return fmt.Errorf("cannot send %T: %w: %d bytes exceed %d", m, ErrTooLarge, len(body)+1, limit)
	}
	frame := make([]byte, 5, 5+len(body))
	binary.BigEndian.PutUint32(frame, uint32(len(body)+1)) //nolint:gosec // bounded by the limit above
	frame[4] = byte(m.kind())
	_, err = w.Write(append(frame, body...))
	return err
}

// Read reads one message that travels in direction d. It returns io.EOF only
// when r ends before the first byte, and an error wrapping [ErrProtocol] when
// the peer broke a rule. It allocates no more than the bytes that arrived call for.
func Read(r io.Reader, d Direction) (Message, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n == 0 || int64(n) > int64(d.limit()) {
		return nil, fmt.Errorf("%w: message of %d bytes", ErrProtocol, n)
	}
	kind := Kind(head[4])
	m := kind.make()
	if m == nil || kind.direction() != d {
		return nil, fmt.Errorf("%w: unexpected kind %#x", ErrProtocol, uint8(kind))
	}
	body, err := readBody(r, int(n)-1)
	if err != nil {
		return nil, err
	}
	if err := decMode.Unmarshal(body, m); err != nil {
		return nil, fmt.Errorf("%w: %T: %v", ErrProtocol, m, err)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%w: %T: %v", ErrProtocol, m, err)
	}
	return m, nil
}

// readBody reads exactly n bytes, growing as they arrive so that a length
// alone buys no memory.
func readBody(r io.Reader, n int) ([]byte, error) {
	const step = 64 << 10
	body := make([]byte, 0, min(n, step))
	for len(body) < n {
		k := min(n-len(body), step)
		body = slices.Grow(body, k)
		got, err := io.ReadFull(r, body[len(body):len(body)+k])
		body = body[:len(body)+got]
		if err != nil {
			return nil, unexpected(err)
		}
	}
	return body, nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Failure builds a Failed message whose text is valid UTF-8 and fits.
func Failure(reason Reason, text string) *Failed {
	text = strings.ToValidUTF8(text, "\uFFFD")
	for len(text) > maxText || !utf8.ValidString(text) {
		text = text[:min(len(text)-1, maxText)]
	}
	return &Failed{Reason: reason, Text: text}
}

func (m *Failed) Error() string { return m.Text }
