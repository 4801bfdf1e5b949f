package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gondolin/internal/fingerprint"
	"gondolin/internal/lockfile"
)

const (
	lockName    = "lock"
	draftPrefix = ".gondolin-draft-"
)

// ErrExists is wrapped when there is something where a checkpoint should be made.
var ErrExists = errors.New("it exists")

// Lifetime says how long a checkpoint is meant to last.
type Lifetime string

// Lifetimes.
const (
	Lasting  Lifetime = "lasting"  // outlives the host's boot, and may be copied elsewhere
	Fleeting Lifetime = "fleeting" // is used at once and removed
)

// Draft is a checkpoint in the making. Commit or Discard it.
type Draft struct {
	dir, final string
	lock       *lockfile.Lock
}

// Begin begins a checkpoint that is to be the directory final, whose parent exists.
func Begin(final string) (*Draft, error) {
	final, err := filepath.Abs(final)
	if err != nil {
		return nil, fmt.Errorf("cannot make a checkpoint: %w", err)
	}
	if _, err := os.Lstat(final); err == nil {
		return nil, fmt.Errorf("cannot make a checkpoint at %s: %w", final, ErrExists)
	}
	parent := filepath.Dir(final)
	sweep(parent)
	for {
		dir, err := os.MkdirTemp(parent, draftPrefix) // mode 0700
		if err != nil {
			return nil, fmt.Errorf("cannot make a checkpoint: %w", err)
		}
		lock, err := lockfile.Try(filepath.Join(dir, lockName))
		switch {
		case err == nil:
			return &Draft{dir: dir, final: final, lock: lock}, nil
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, lockfile.ErrHeld): // swept by another, just now
			continue
		default:
			return nil, errors.Join(fmt.Errorf("cannot make a checkpoint: %w", err), os.RemoveAll(dir))
		}
	}
}

// sweep removes drafts whose makers are gone. One that cannot be removed costs space only.
func sweep(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), draftPrefix) {
			continue
		}
		dir := filepath.Join(parent, e.Name())
		lock, err := lockfile.Try(filepath.Join(dir, lockName))
		if err != nil {
			continue
		}
		_ = os.RemoveAll(dir)
		lock.Close()
	}
}

// Path returns where the draft's file is to be.
func (d *Draft) Path(name string) string { return filepath.Join(d.dir, name) }

// Free returns the bytes that are free where the draft is.
func (d *Draft) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		return 0, fmt.Errorf("cannot look at the space in %s: %w", filepath.Dir(d.dir), err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:gosec,unconvert,nolintlint // sizes of a disk
}

// Commit makes the draft a checkpoint. about says what it is of; it is returned by
// Read. If it fails nothing is left.
func (d *Draft) Commit(about any, life Lifetime) (*Checkpoint, error) {
	m, err := d.describe(about, life)
	if err == nil {
		err = d.write(m, life)
	}
	if err == nil {
		err = d.publish(life)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot make the checkpoint %s: %w", d.final, err), d.Discard())
	}
	_ = os.Remove(d.Path(lockName)) // costs nothing if it stays
	d.lock.Close()
	d.lock = nil
	return &Checkpoint{dir: d.final, manifest: m}, nil
}

func (d *Draft) describe(about any, life Lifetime) (*manifest, error) {
	m := &manifest{Version: version, Created: time.Now().UTC(), Digests: make(map[string]string)}
	var err error
	if m.About, err = json.Marshal(about); err != nil {
		return nil, err
	}
	for _, name := range []string{Devices, Files} {
		sum, err := fingerprint.SHA256(d.Path(name), MaxFile)
		if name == Files && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		m.Digests[name] = sum
	}
	ram, err := os.OpenFile(d.Path(RAM), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer ram.Close()
	if life == Lasting {
		if err := ram.Sync(); err != nil {
			return nil, err
		}
		if m.Content, err = hashMemory(ram); err != nil {
			return nil, err
		}
	}
	m.RAM, err = fingerprint.Of(ram)
	return m, err
}

func (d *Draft) write(m *manifest, life Lifetime) error {
	raw, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	if len(raw) > maxManifest {
		return fmt.Errorf("its description has %d bytes, more than %d", len(raw), maxManifest)
	}
	if err := os.WriteFile(d.Path(manifestName), raw, 0o600); err != nil {
		return err
	}
	if life == Fleeting {
		return nil
	}
	for _, name := range []string{Devices, Files, manifestName, "."} {
		if err := syncFile(d.Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// publish gives the checkpoint its name, unless something else has it by now.
func (d *Draft) publish(life Lifetime) error {
	if _, err := os.Lstat(d.final); err == nil {
		return ErrExists // rename(2) would replace an empty directory
	}
	if err := os.Rename(d.dir, d.final); err != nil {
		return err
	}
	d.dir = d.final
	if life == Fleeting {
		return nil
	}
	return syncFile(filepath.Dir(d.final))
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Discard removes the draft. It does nothing after Commit.
func (d *Draft) Discard() error {
	if d.lock == nil {
		return nil
	}
	err := os.RemoveAll(d.dir)
	d.lock.Close()
	d.lock = nil
	return err
}
