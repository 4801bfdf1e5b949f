package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Copy is the copying of a running machine, its memory into a file that machines
// can begin with. The machine's memory may be private, and partly that of a file it
// shares with others, so only the machine itself can say what it holds. It sends it,
// standing still, as in a migration, into a file that has no name; and later, when it runs
// again, a second QEMU that never runs takes it from there, with the file to be made as its
// memory, and saves the state of the devices as Process.Save does:
//
//	Process.Copy, Stop -> the machine stands still
//	Finish             -> all of it is sent
//	Process.Resume
//	Save               -> the files are complete
//
// The machine is not copied while it runs, as a live migration would: copies that QEMU 7.2
// made so under emulation were seen with damaged memory. It probably misses writes, where
// cpu_physical_memory_sync_dirty_bitmap clears marks without telling the processors.
//
// Close in any case. The methods are called one at a time.
type Copy struct {
	source   *Process
	ram      string
	opts     Options
	spool    *os.File
	finished bool
}

// copyName is what QEMU calls the descriptor a migration goes through.
const copyName = "copy"

// Copy prepares to copy the machine. ram is the path of an empty file for its memory.
func (p *Process) Copy(ctx context.Context, ram string, opts Options) (*Copy, error) {
	spool, err := os.CreateTemp(filepath.Dir(ram), "spool-")
	if err != nil {
		return nil, fmt.Errorf("cannot copy: %w", err)
	}
	if err := os.Remove(spool.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot copy: %w", err), spool.Close())
	}
	c := &Copy{source: p, ram: ram, opts: opts, spool: spool}
	_, err = p.Execute(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": copyBandwidth})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot copy: %w", err), spool.Close())
	}
	return c, nil
}

// Stop has the machine stand still. Whatever follows, Process.Resume lets it run again.
func (c *Copy) Stop(ctx context.Context) error { return c.source.Pause(ctx) }

// Finish sends all of the machine, which stands still and may then run again.
func (c *Copy) Finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, migrateDeadline)
	defer cancel()
	s, err := newStream("copy-from")
	if err != nil {
		return err
	}
	defer s.ours.Close()
	taken := make(chan error, 1)
	go take(c.spool, s.ours, c.source.machine.Memory+maxState, taken)
	err = c.source.send(ctx, s.theirs)
	s.theirs.Close() // QEMU's is the only one left
	if err != nil {
		s.ours.Close()
	}
	if terr := <-taken; terr != nil { // of which QEMU only sees the consequence
		err = terr
	}
	if err != nil {
		return fmt.Errorf("cannot copy: %w", err)
	}
	c.finished = true
	return c.source.awaitIdle(ctx)
}

// take writes all that comes from a machine to the spool, unless it is more than limit
// bytes, which a QEMU in the guest's hands might send.
func take(spool *os.File, from net.Conn, limit int64, taken chan<- error) {
	n, err := io.CopyBuffer(writerOnly{spool}, io.LimitReader(from, limit+1), make([]byte, copyBuffer))
	if n > limit {
		err = fmt.Errorf("the machine sends more than the %d bytes it can have", limit)
	}
	from.Close() // the machine need not send what nobody takes
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	taken <- err
}

// writerOnly hides os.File's ReadFrom, which would ignore the buffer.
type writerOnly struct{ io.Writer }

// send migrates the machine through f.
func (p *Process) send(ctx context.Context, f *os.File) error {
	if err := p.offer(ctx, f); err != nil {
		return err
	}
	if err := p.startMove(ctx, "migrate", "fd:"+copyName); err != nil {
		return err
	}
	return p.awaitMove(ctx, "migrate")
}

// offer gives QEMU the descriptor of a migration that takes the memory along.
func (p *Process) offer(ctx context.Context, f *os.File) error {
	if err := p.capabilities(ctx, memoryGoes); err != nil {
		return err
	}
	_, err := p.monitor.executeWith(ctx, "getfd", map[string]string{"fdname": copyName}, f)
	return err
}

// Save makes the memory's file, and writes the devices' state to the file state, which
// is open for writing.
func (c *Copy) Save(ctx context.Context, state *os.File) (err error) {
	ctx, cancel := context.WithTimeout(ctx, migrateDeadline)
	defer cancel()
	m := c.source.machine
	m.RAM, m.Incoming, m.Receives = RAM{Path: c.ram, Shared: true}, "", true
	receiver, err := Start(ctx, m, c.opts)
	if err != nil {
		return fmt.Errorf("cannot copy: %w", err)
	}
	defer func() { err = errors.Join(err, receiver.Close()) }()
	if err := c.feed(ctx, receiver); err != nil {
		return fmt.Errorf("cannot copy: %w", err)
	}
	return receiver.Save(ctx, state)
}

// feed has the receiver take what is in the spool.
func (c *Copy) feed(ctx context.Context, receiver *Process) error {
	if _, err := c.spool.Seek(0, io.SeekStart); err != nil {
		return err
	}
	s, err := newStream("copy-to")
	if err != nil {
		return err
	}
	given := make(chan error, 1)
	go give(s.ours, c.spool, given)
	err = receiver.receive(ctx, s.theirs)
	s.theirs.Close()
	s.ours.Close() // what it has not taken it does not need
	gerr := <-given
	if err != nil {
		if receiver.Err() != nil {
			return receiver.Err()
		}
		return errors.Join(err, gerr)
	}
	return nil
}

// give sends the spool to a machine.
func give(to net.Conn, spool *os.File, given chan<- error) {
	_, err := io.CopyBuffer(writerOnly{to}, spool, make([]byte, copyBuffer))
	to.Close()
	given <- err
}

// receive loads the machine from f.
func (p *Process) receive(ctx context.Context, f *os.File) error {
	if err := p.offer(ctx, f); err != nil {
		return err
	}
	if err := p.startMove(ctx, "migrate-incoming", "fd:"+copyName); err != nil {
		return err
	}
	return p.awaitMove(ctx, "migrate-incoming")
}

// Close gives up a copying that is not finished.
func (c *Copy) Close() error {
	var err error
	if !c.finished {
		ctx, cancel := context.WithTimeout(context.Background(), cancelDeadline) //nolint:forbidigo // also when the caller has given up
		defer cancel()
		// Refused if nothing is under way; a source that is gone says so elsewhere.
		_, _ = c.source.Execute(ctx, "migrate_cancel", nil)
		err = c.source.awaitIdle(ctx)
	}
	return errors.Join(err, c.spool.Close())
}

// awaitIdle waits until no migration is under way, and the machine can be told to run.
func (p *Process) awaitIdle(ctx context.Context) error {
	ticker := time.NewTicker(copyPoll)
	defer ticker.Stop()
	for {
		idle, err := p.idle(ctx)
		if err != nil || idle {
			return nil
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
