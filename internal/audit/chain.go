package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
)

// Hash is one link of a chain; the zero Hash is what a chain begins from.
type Hash [sha256.Size]byte

// String returns 64 hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ParseHash reads what String writes.
func ParseHash(s string) (h Hash, err error) {
	if len(s) != 2*sha256.Size {
		return h, fmt.Errorf("cannot use %q as a hash: it must have %d hexadecimal digits", s, 2*sha256.Size)
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return Hash{}, fmt.Errorf("cannot use %q as a hash: %w", s, err)
	}
	return h, nil
}

// chain is the state between two lines.
type chain struct {
	seq  uint64 // of the last line
	head Hash   // of the last line

	buf []byte // kept between lines: the head, then the line
}

const (
	hashKey = `,"hash":"`
	tailLen = len(hashKey) + 2*sha256.Size + len(`"}`)
)

// seal numbers and hashes a body, and returns the line, which is valid until the
// next call.
func (c *chain) seal(body []byte) []byte {
	c.seq++
	b := append(c.buf[:0], c.head[:]...)
	b = append(b, body...)
	b = append(b, `,"seq":`...)
	b = strconv.AppendUint(b, c.seq, 10)
	c.head = sha256.Sum256(b)
	b = append(b, hashKey...)
	b = hex.AppendEncode(b, c.head[:])
	b = append(b, "\"}\n"...)
	c.buf = b
	return b[sha256.Size:]
}

// splitLine cuts a line, without its break, into what was hashed and its hash.
func splitLine(line []byte) (hashed []byte, h Hash, ok bool) {
	if len(line) < tailLen {
		return nil, h, false
	}
	hashed, tail := line[:len(line)-tailLen], line[len(line)-tailLen:]
	digits, found := bytes.CutPrefix(tail, []byte(hashKey))
	digits, closed := bytes.CutSuffix(digits, []byte(`"}`))
	if !found || !closed {
		return nil, h, false
	}
	if _, err := hex.Decode(h[:], digits); err != nil || h.String() != string(digits) {
		return nil, h, false
	}
	return hashed, h, true
}

// next is the hash of a line that follows the one with hash h.
func (h Hash) next(hashed []byte) Hash {
	d := sha256.New()
	_, _ = d.Write(h[:]) // never fails
	_, _ = d.Write(hashed)
	var out Hash
	d.Sum(out[:0])
	return out
}
