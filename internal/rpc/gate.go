package rpc

import (
	"errors"
	"io"
	"sync"
)

// Marks stand outside the frames, where one could begin: their first byte is no
// version of yamux. All are equally long.
const (
	// markSession begins every session of a host. A guest that meets it, first or
	// later, drops the session it was in: the host that speaks is then another one,
	// which continues a copy of this guest and knows nothing of the streams there were.
	markSession = "gondolin session\n"
	// markHold says that nothing follows until markProceed. The host says it first; the
	// guest's is the answer.
	markHold    = "gondolin holding\n"
	markProceed = "gondolin proceed\n"
	markSize    = len(markSession)
)

// gate lets a multiplexer's frames out, and holds them back between two of them.
type gate struct {
	to io.Writer

	mu      sync.Mutex // guards the rest; not held during writes
	moved   sync.Cond  // one of the fields below has changed
	frames  frames     // where in a frame the output is
	writing bool
	held    bool
	told    bool // the other side knows that it is held
	ended   bool
}

func newGate(to io.Writer) *gate {
	g := &gate{to: to}
	g.moved.L = &g.mu
	return g
}

// write sends p, which is a header or a payload, once the gate is open. gone says
// that the session p belongs to has been replaced.
func (g *gate) write(p []byte, gone func() bool) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for (g.writing || g.held && g.frames.between()) && !g.ended && !gone() {
		g.moved.Wait()
	}
	if gone() {
		return 0, errReplaced
	}
	n, err := g.sendLocked(p)
	for at := 0; at < n; {
		k, _ := g.frames.advance(p[at:n])
		at += k
	}
	return n, err
}

// sendLocked writes p, without the lock. Nobody else is writing.
func (g *gate) sendLocked(p []byte) (int, error) {
	if g.ended {
		return 0, io.ErrClosedPipe
	}
	g.writing = true
	g.mu.Unlock()
	n, err := g.to.Write(p)
	g.mu.Lock()
	g.writing = false
	g.moved.Broadcast()
	return n, err
}

// hold closes the gate at the end of the frame under way, and says so. It blocks as
// long as the other side does not read.
func (g *gate) hold() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = true
	for (g.writing || !g.frames.between()) && g.held && !g.ended {
		g.moved.Wait()
	}
	if !g.held {
		return errors.New("it goes on already")
	}
	g.told = true
	_, err := g.sendLocked([]byte(markHold))
	return err
}

// proceed opens the gate, after telling the other side if there is a mark for it.
func (g *gate) proceed(mark string) (err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.writing && !g.ended {
		g.moved.Wait()
	}
	if g.told && mark != "" {
		_, err = g.sendLocked([]byte(mark))
	}
	g.held, g.told = false, false
	g.moved.Broadcast()
	return err
}

// restart opens the gate for another session.
func (g *gate) restart() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.frames, g.held, g.told = frames{}, false, false
	g.moved.Broadcast()
}

// wake has those who wait look again.
func (g *gate) wake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.moved.Broadcast()
}

// end fails whoever waits.
func (g *gate) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	g.moved.Broadcast()
}
