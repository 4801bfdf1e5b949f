package qemu

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestRingKeepsTheLastBytes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for size := range 9 {
		r, all := newRing(size), []byte(nil)
		for range 200 {
			p := make([]byte, random.IntN(2*size+2))
			for i := range p {
				p[i] = byte(random.Uint32())
			}
			if n, err := r.Write(p); n != len(p) || err != nil {
				t.Fatalf("Write gave %d, %v for %d bytes", n, err, len(p))
			}
			all = append(all, p...)
			if want := all[max(0, len(all)-size):]; !bytes.Equal(r.Bytes(), want) {
				t.Fatalf("size %d: got %x, want %x", size, r.Bytes(), want)
			}
		}
	}
}
