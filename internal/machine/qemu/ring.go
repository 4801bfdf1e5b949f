package qemu

import "sync"

// ring keeps the last bytes written to it. Its zero value keeps nothing; use newRing.
type ring struct {
	mu   sync.Mutex // guards the rest
	buf  []byte
	next int  // where the next byte goes
	full bool // buf has been filled once
}

func newRing(size int) *ring { return &ring{buf: make([]byte, size)} }

// Write always takes all of p.
func (r *ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	total := len(p)
	if len(r.buf) == 0 {
		return total, nil
	}
	if len(p) >= len(r.buf) {
		p = p[len(p)-len(r.buf):]
		r.full = true
	}
	for len(p) > 0 {
		n := copy(r.buf[r.next:], p)
		p = p[n:]
		r.next += n
		if r.next == len(r.buf) {
			r.next, r.full = 0, true
		}
	}
	return total, nil
}

// Bytes returns a copy of what is kept, oldest first.
func (r *ring) Bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.full {
		return append([]byte(nil), r.buf[:r.next]...)
	}
	return append(append([]byte(nil), r.buf[r.next:]...), r.buf[:r.next]...)
}
