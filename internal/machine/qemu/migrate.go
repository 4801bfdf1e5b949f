package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
)

// The state of a machine moves in QEMU's own migration format
// (docs/devel/migration.rst). With x-ignore-shared the memory stays where it is,
// in its file, and only the devices' state is written.

// maxMigrationEvents is how many MIGRATION events one move has at most, with room:
// setup, active, device, completed or failed.
const maxMigrationEvents = 16

// migrationState returns what a MIGRATION event reports, "" for any other event.
func migrationState(e Event) string {
	if e.Name != "MIGRATION" {
		return ""
	}
	var data struct {
		Status string `json:"status"`
	}
	if json.Unmarshal(e.Data, &data) != nil {
		return "unreadable"
	}
	return data.Status
}

// memoryMoves says what happens to the guest's memory in a move.
type memoryMoves string

const (
	memoryStays memoryMoves = "stays"
	memoryGoes  memoryMoves = "goes along"
)

// capabilities prepares QEMU for a move.
func (p *Process) capabilities(ctx context.Context, memory memoryMoves) error {
	type capability struct {
		Capability string `json:"capability"`
		State      bool   `json:"state"`
	}
	_, err := p.Execute(ctx, "migrate-set-capabilities", map[string]any{
		"capabilities": []capability{{"x-ignore-shared", memory == memoryStays}, {"events", true}},
	})
	return err
}

// Save stops the machine and writes the state of its devices to the file state,
// which is open for writing. With RAM, which must be a shared file, it is all that
// Incoming needs. The machine stays stopped; Close it, or go on with "cont".
func (p *Process) Save(ctx context.Context, state *os.File) error {
	if !p.machine.RAM.Shared {
		return fmt.Errorf("cannot save: the machine's memory is not a shared file")
	}
	ctx, cancel := context.WithTimeout(ctx, migrateDeadline)
	defer cancel()
	if err := p.capabilities(ctx, memoryStays); err != nil {
		return fmt.Errorf("cannot save: %w", err)
	}
	if _, err := p.Execute(ctx, "stop", nil); err != nil {
		return fmt.Errorf("cannot save: %w", err)
	}
	const name = "state"
	if _, err := p.monitor.executeWith(ctx, "getfd", map[string]string{"fdname": name}, state); err != nil {
		return fmt.Errorf("cannot save: %w", err)
	}
	if err := p.move(ctx, "migrate", "fd:"+name); err != nil {
		return fmt.Errorf("cannot save: %w", err)
	}
	return nil
}

// Restore loads the device state that Incoming names and lets the machine run.
func (p *Process) Restore(ctx context.Context) error {
	if p.machine.Incoming == "" {
		return fmt.Errorf("cannot restore: the machine has no incoming state")
	}
	ctx, cancel := context.WithTimeout(ctx, migrateDeadline)
	defer cancel()
	if err := p.capabilities(ctx, memoryStays); err != nil {
		return fmt.Errorf("cannot restore: %w", err)
	}
	if err := p.move(ctx, "migrate-incoming", "fd:"+strconv.Itoa(p.wiring.fds.Incoming)); err != nil {
		return fmt.Errorf("cannot restore: %w", err)
	}
	if _, err := p.Execute(ctx, "cont", nil); err != nil {
		return fmt.Errorf("cannot restore: %w", err)
	}
	return nil
}

// move starts a migration, either way, and waits for its end.
func (p *Process) move(ctx context.Context, command, uri string) error {
	if err := p.startMove(ctx, command, uri); err != nil {
		return err
	}
	return p.awaitMove(ctx, command)
}

// startMove starts a migration. What was reported of one before is forgotten.
func (p *Process) startMove(ctx context.Context, command, uri string) error {
	for len(p.moved) > 0 {
		<-p.moved
	}
	_, err := p.Execute(ctx, command, map[string]string{"uri": uri})
	return err
}

// awaitMove waits for the end of a migration.
func (p *Process) awaitMove(ctx context.Context, command string) error {
	for {
		select {
		case state := <-p.moved:
			switch state {
			case "completed":
				return nil
			case "failed", "cancelled", "unreadable":
				return fmt.Errorf("%s ended as %s: %s", command, state, p.migrationError(ctx))
			}
		case <-p.done:
			return p.Err()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// migrationError asks QEMU why a migration failed.
func (p *Process) migrationError(ctx context.Context) string {
	raw, err := p.Execute(ctx, "query-migrate", nil)
	if err != nil {
		return err.Error()
	}
	var info struct {
		Desc string `json:"error-desc"`
	}
	if json.Unmarshal(raw, &info) != nil || info.Desc == "" {
		return "qemu does not say why"
	}
	return shorten(info.Desc)
}
