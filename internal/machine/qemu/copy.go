package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Copy is the copying of a running machine, its memory into a file that machines
// can begin with. The machine's memory may be private, and partly that of a file it
// shares with others, so only the machine itself can say what it holds. It sends it,
// as in a live migration, to a second QEMU that has the file as its memory and never
// runs; that one then saves the state of the devices, as Process.Save does.
//
// The bytes pass through a relay of this process, which can stop them. That is how the
// caller, and not QEMU, chooses the moment at which the machine stands still:
//
//	Process.Copy -> most of the memory is sent; the machine runs
//	Stop         -> the machine stands still
//	Finish       -> the rest is sent
//	Process.Resume; Save
//
// Close in any case. The methods are called one at a time.
type Copy struct {
	source, receiver *Process
	relay            *relay
	finished         bool
}

// copyName is what QEMU calls the descriptor a migration goes through.
const copyName = "copy"

// Copy begins to copy the machine, and returns when little of its memory is left to
// be sent. ram is the path of an empty file for it.
func (p *Process) Copy(ctx context.Context, ram string, opts Options) (*Copy, error) {
	m := p.machine
	m.RAM, m.Incoming, m.Receives = RAM{Path: ram, Shared: true}, "", true
	receiver, err := Start(ctx, m, opts)
	if err != nil {
		return nil, fmt.Errorf("cannot copy: %w", err)
	}
	c := &Copy{source: p, receiver: receiver}
	if err := c.begin(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot copy: %w", c.cause(err)), c.giveUp())
	}
	return c, nil
}

func (c *Copy) begin(ctx context.Context) error {
	from, err := newStream("copy-from")
	if err != nil {
		return err
	}
	defer from.theirs.Close()
	to, err := newStream("copy-to")
	if err != nil {
		return errors.Join(err, from.ours.Close())
	}
	defer to.theirs.Close()
	c.relay = startRelay(to.ours, from.ours)
	if err := c.receiver.offer(ctx, to.theirs); err != nil {
		return err
	}
	if err := c.receiver.startMove(ctx, "migrate-incoming", "fd:"+copyName); err != nil {
		return err
	}
	if err := c.source.offer(ctx, from.theirs); err != nil {
		return err
	}
	_, err = c.source.Execute(ctx, "migrate-set-parameters", map[string]any{
		"max-bandwidth": copyBandwidth, "downtime-limit": copyDowntime.Milliseconds(),
	})
	if err != nil {
		return err
	}
	// The machine stands still until QEMU follows what is written to memory. Under
	// emulation QEMU 7.2 misses what is written through addresses that a processor looked
	// up while it begins to (cpu_physical_memory_sync_dirty_bitmap clears the marks of pages that are to
	// be sent in any case without telling the processors).
	if err := c.source.Pause(ctx); err != nil {
		return err
	}
	err = c.source.startMove(ctx, "migrate", "fd:"+copyName)
	if err == nil {
		err = c.await(ctx, func(m migration) bool { return m.RAM.Rounds > 0 })
	}
	if err := errors.Join(err, c.source.Resume(context.WithoutCancel(ctx))); err != nil {
		return err
	}
	err = c.await(ctx, func(m migration) bool { return m.RAM.Remaining <= max(m.RAM.Total/copyRest, minCopyRest) })
	c.relay.hold()
	return err
}

// offer gives QEMU the descriptor of a migration that takes the memory along.
func (p *Process) offer(ctx context.Context, f *os.File) error {
	if err := p.capabilities(ctx, memoryGoes); err != nil {
		return err
	}
	_, err := p.monitor.executeWith(ctx, "getfd", map[string]string{"fdname": copyName}, f)
	return err
}

// ErrEarly is wrapped when QEMU came to the end of the memory by itself, which was too
// early. It can be tried again.
var ErrEarly = errors.New("the machine's memory was sent before the machine was to stand still")

// migration is QEMU's account of a migration.
type migration struct {
	Status string `json:"status"`
	RAM    struct {
		Remaining int64 `json:"remaining"`
		Total     int64 `json:"total"`
		Rounds    int64 `json:"dirty-sync-count"`
	} `json:"ram"`
}

// await waits until the memory is being sent and enough says so. A second round is as
// bad as the end, for the reason in begin.
func (c *Copy) await(ctx context.Context, enough func(migration) bool) error {
	ticker := time.NewTicker(copyPoll)
	defer ticker.Stop()
	for {
		raw, err := c.source.Execute(ctx, "query-migrate", nil)
		if err != nil {
			return err
		}
		var m migration
		if err := json.Unmarshal(raw, &m); err != nil {
			return fmt.Errorf("cannot read the answer to query-migrate: %w", err)
		}
		switch {
		case m.Status == "completed" || m.RAM.Rounds > 1:
			return ErrEarly
		case m.Status == "failed" || m.Status == "cancelled":
			return fmt.Errorf("it ended as %s: %s", m.Status, c.source.migrationError(ctx))
		case m.Status == "active" && enough(m):
			return nil
		}
		select {
		case <-ticker.C:
		case <-c.receiver.done:
			return c.receiver.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Stop has the machine stand still. Whatever follows, Process.Resume lets it run again.
func (c *Copy) Stop(ctx context.Context) error { return c.source.Pause(ctx) }

// Finish sends the rest of the memory and the devices' state. The machine, which stands
// still, may then run again.
func (c *Copy) Finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, migrateDeadline)
	defer cancel()
	c.relay.proceed()
	if err := c.source.awaitMove(ctx, "migrate"); err != nil {
		return fmt.Errorf("cannot copy: %w", c.cause(err))
	}
	c.finished = true
	return c.source.awaitIdle(ctx)
}

// Save writes the devices' state to the file state, which is open for writing.
func (c *Copy) Save(ctx context.Context, state *os.File) error {
	receiving, cancel := context.WithTimeout(ctx, migrateDeadline)
	defer cancel()
	if err := c.receiver.awaitMove(receiving, "migrate-incoming"); err != nil {
		return fmt.Errorf("cannot copy: %w", c.cause(err))
	}
	return c.receiver.Save(ctx, state)
}

// cause prefers the end of the receiver, of which all else is a consequence.
func (c *Copy) cause(err error) error {
	timer := time.NewTimer(drainDeadline)
	defer timer.Stop()
	if c.relay == nil || c.relay.failed() == nil {
		return err
	}
	select {
	case <-c.receiver.done:
		if rerr := c.receiver.Err(); rerr != nil {
			return rerr
		}
	case <-timer.C:
	}
	return err
}

// giveUp closes a copying that could not be begun. If QEMU has stopped the
// machine by itself, it goes on.
func (c *Copy) giveUp() error {
	err := c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), cancelDeadline)
	defer cancel()
	return errors.Join(err, c.source.Resume(ctx))
}

// Close ends the receiver. A copying that is not finished is given up.
func (c *Copy) Close() error {
	var err error
	if c.relay != nil {
		c.relay.close()
	}
	if !c.finished {
		ctx, cancel := context.WithTimeout(context.Background(), cancelDeadline)
		defer cancel()
		// Refused if nothing is under way; a source that is gone says so elsewhere.
		_, _ = c.source.Execute(ctx, "migrate_cancel", nil)
		err = c.source.awaitIdle(ctx)
	}
	return errors.Join(err, c.receiver.Close())
}

// awaitIdle waits until no migration is under way, and the machine can be told to run.
func (p *Process) awaitIdle(ctx context.Context) error {
	ticker := time.NewTicker(copyPoll)
	defer ticker.Stop()
	for {
		idle, err := p.idle(ctx)
		if err != nil || idle {
			return nil //nolint:nilerr // QEMU is gone
		}
		select {
		case <-ticker.C:
		case <-p.done:
			return nil
		case <-ctx.Done():
			return errors.New("cannot end the copying of the machine")
		}
	}
}

// idle reports whether no migration is under way. QEMU says that one has completed
// before it is done with it.
func (p *Process) idle(ctx context.Context) (bool, error) {
	var migration, machine struct {
		Status string `json:"status"`
	}
	for _, query := range []struct {
		command string
		to      any
	}{{"query-migrate", &migration}, {"query-status", &machine}} {
		raw, err := p.Execute(ctx, query.command, nil)
		if err != nil {
			return false, err
		}
		if err := json.Unmarshal(raw, query.to); err != nil {
			return false, fmt.Errorf("cannot read the answer to %s: %w", query.command, err)
		}
	}
	switch migration.Status {
	case "", "none", "completed", "failed", "cancelled":
		return machine.Status != "finish-migrate", nil
	}
	return false, nil
}

// relay moves the bytes of a migration, one goroutine's work, and can stop.
type relay struct {
	to, from net.Conn
	done     chan struct{}

	mu      sync.Mutex // guards the rest
	moved   sync.Cond  // held or ended has changed
	held    bool
	ended   bool
	failure error // of writing, before the source had sent all
}

func startRelay(to, from net.Conn) *relay {
	r := &relay{to: to, from: from, done: make(chan struct{})}
	r.moved.L = &r.mu
	go r.run()
	return r
}

func (r *relay) run() {
	defer close(r.done)
	buf := make([]byte, relayBuffer)
	for {
		n, err := r.from.Read(buf)
		r.await()
		if _, werr := r.to.Write(buf[:n]); werr != nil {
			r.mu.Lock()
			r.failure = werr
			r.mu.Unlock()
			r.from.Close() // the source need not send what nobody takes
			return
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				r.to.Close() // all is sent
			}
			return
		}
	}
}

// await waits while the relay is held.
func (r *relay) await() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.held && !r.ended {
		r.moved.Wait()
	}
}

func (r *relay) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = true
}

func (r *relay) proceed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = false
	r.moved.Broadcast()
}

func (r *relay) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failure
}

// close ends the relay and waits for that.
func (r *relay) close() {
	r.mu.Lock()
	r.ended = true
	r.moved.Broadcast()
	r.mu.Unlock()
	r.from.Close()
	r.to.Close()
	<-r.done
}
