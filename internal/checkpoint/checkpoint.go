// Package checkpoint keeps a moment of a VM as a directory: what its memory, its
// devices and the host's part of it were, each in a file, and a manifest that says what
// they are of and by which they are recognised. What is in the files is the business of
// whoever saves and restores.
//
// A checkpoint is made under another name in the directory beside it, and gets its
// own when it is whole. What a process that died has left there is removed by the next.
package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"gondolin/internal/fingerprint"
)

// version is that of the manifest; any other is refused.
const version = 1

// The files of a checkpoint.
const (
	RAM     = "ram"     // the guest's memory, to be mapped
	Devices = "devices" // the state of the machine's devices
	Files   = "files"   // what the file server knows; may be missing

	manifestName = "checkpoint.json"
)

const (
	// maxManifest bounds the manifest, in bytes: names of some thousand hosts.
	maxManifest = 16 << 20
	// MaxFile bounds all files but the memory, in bytes.
	MaxFile = 1 << 30
)

type manifest struct {
	Version int                     `json:"version"`
	Created time.Time               `json:"created"`
	About   json.RawMessage         `json:"about"`
	RAM     fingerprint.Fingerprint `json:"ram"`
	// Content is the memory's digest; empty in one that lives as long as its maker.
	Content string            `json:"ram_content,omitempty"`
	Digests map[string]string `json:"sha256"` // of the other files
}

// Checkpoint is one that can be used.
type Checkpoint struct {
	dir      string
	manifest *manifest
}

// Open opens the checkpoint in dir, after checking that each file is what was saved.
func Open(dir string) (*Checkpoint, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot use the checkpoint: %w", err)
	}
	sweep(filepath.Dir(dir))
	c := &Checkpoint{dir: dir}
	if c.manifest, err = readManifest(filepath.Join(dir, manifestName)); err == nil {
		err = c.verify()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use the checkpoint %s: %w", dir, err)
	}
	return c, nil
}

func readManifest(path string) (*manifest, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is none, or it is not whole: %w", err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, err
	}
	m := new(manifest)
	if len(raw) > maxManifest || json.Unmarshal(raw, m) != nil {
		return nil, fmt.Errorf("%s is damaged", path)
	}
	if m.Version != version {
		return nil, fmt.Errorf("it has format %d, and this program reads %d; restore it with the version that made it", m.Version, version)
	}
	return m, nil
}

// verify compares the files with the manifest. The memory is read only if it does not
// look as it did, as after it was copied.
func (c *Checkpoint) verify() error {
	if c.manifest.Digests[Devices] == "" {
		return errors.New("its manifest is damaged")
	}
	for name, want := range c.manifest.Digests {
		if name != Devices && name != Files {
			return errors.New("its manifest is damaged")
		}
		sum, err := fingerprint.SHA256(c.Path(name), MaxFile)
		if err != nil {
			return err
		}
		if sum != want {
			return fmt.Errorf("its file %s was truncated or changed", name)
		}
	}
	ram, err := os.Open(c.Path(RAM))
	if err != nil {
		return err
	}
	defer ram.Close()
	now, err := fingerprint.Of(ram)
	if err != nil {
		return err
	}
	if now == c.manifest.RAM {
		return nil
	}
	sum := ""
	if now.Size == c.manifest.RAM.Size && c.manifest.Content != "" {
		if sum, err = hashMemory(ram); err != nil {
			return err
		}
	}
	if sum == "" || sum != c.manifest.Content {
		return fmt.Errorf("its file %s was truncated or changed", RAM)
	}
	return nil
}

// Path returns the path of a file.
func (c *Checkpoint) Path(name string) string { return filepath.Join(c.dir, name) }

// Has reports whether the checkpoint has the file.
func (c *Checkpoint) Has(name string) bool { return c.manifest.Digests[name] != "" }

// Created returns when it was made.
func (c *Checkpoint) Created() time.Time { return c.manifest.Created }

// Read returns what the checkpoint is of.
func (c *Checkpoint) Read(about any) error {
	if err := json.Unmarshal(c.manifest.About, about); err != nil {
		return fmt.Errorf("cannot use the checkpoint %s: its manifest is damaged", c.dir)
	}
	return nil
}

// Size returns the bytes it takes on disk; a memory file is mostly holes.
func (c *Checkpoint) Size() (bytes int64) {
	for _, name := range []string{RAM, Devices, Files, manifestName} {
		var st unix.Stat_t
		if unix.Lstat(c.Path(name), &st) == nil {
			bytes += st.Blocks * 512
		}
	}
	return bytes
}

// Remove removes it. Machines that have begun with it go on.
func (c *Checkpoint) Remove() error { return os.RemoveAll(c.dir) }
