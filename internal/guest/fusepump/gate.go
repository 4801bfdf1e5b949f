package fusepump

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
)

const (
	// opRest is the request with which a gate asks the host to answer what it has been
	// sent, and this last. Linux has no such opcode; its own are small.
	opRest = 0x676f6e64
	// restUnique is the request's number. Linux counts up from 0.
	restUnique = math.MaxUint64
)

// Gate can hold a pump such that nothing is under way between guest and host. The
// zero value is open. It belongs to one pump.
type Gate struct {
	sending sync.Mutex // held while a request is sent, and from Hold to Proceed

	mu   sync.Mutex // guards the rest
	port io.Writer  // nil before the pump runs
	rest chan struct{}
}

// Hold sends no further request and returns when the host has answered all before,
// and each answer has reached the device. Requests wait until Proceed. If it fails, the gate is open.
func (g *Gate) Hold(ctx context.Context) error {
	g.sending.Lock()
	rest := make(chan struct{})
	g.mu.Lock()
	port := g.port
	g.rest = rest
	g.mu.Unlock()
	if port == nil {
		return nil // nobody has sent anything
	}
	message := make([]byte, requestHeader)
	binary.LittleEndian.PutUint32(message, requestHeader)
	binary.LittleEndian.PutUint32(message[4:], opRest)
	binary.LittleEndian.PutUint64(message[8:], restUnique)
	if _, err := port.Write(message); err != nil {
		g.sending.Unlock()
		return fmt.Errorf("cannot bring the files to rest: %w", err)
	}
	select {
	case <-rest:
		return nil
	case <-ctx.Done():
		g.sending.Unlock()
		return errors.New("cannot bring the files to rest: the host does not answer a request")
	}
}

// Proceed lets a gate that is held send again.
func (g *Gate) Proceed() { g.sending.Unlock() }

// open makes port the one that requests go to.
func (g *Gate) open(port io.Writer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.port = port
}

// answered ends the wait of a Hold.
func (g *Gate) answered() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.rest != nil {
		close(g.rest)
		g.rest = nil
	}
}

// requests is the port behind the gate.
type requests struct {
	port io.Writer
	gate *Gate
}

// Write sends one request.
func (r requests) Write(p []byte) (int, error) {
	r.gate.sending.Lock()
	defer r.gate.sending.Unlock()
	return r.port.Write(p)
}

// replies is the device, for which answers to the gate are not meant.
type replies struct {
	dev  io.Writer
	gate *Gate
}

// Write takes one reply.
func (r replies) Write(p []byte) (int, error) {
	if len(p) == replyHeader && binary.LittleEndian.Uint64(p[8:]) == restUnique {
		r.gate.answered()
		return len(p), nil
	}
	return r.dev.Write(p)
}
