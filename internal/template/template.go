// Package template keeps booted guests as files, so that a new VM can begin as
// a copy-on-write clone of one instead of booting. A template is a file with the
// guest's memory, which clones map privately, and one with the state of its
// devices. What is in them is the business of whoever saves and restores.
//
// Templates are a cache. Anything wrong with one makes it as if it were not there.
package template

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gondolin/internal/fingerprint"
	"gondolin/internal/lockfile"
	"gondolin/internal/paths"
)

// ErrNotFound is returned, wrapped, for a template that is not there.
var ErrNotFound = errors.New("no such template")

// FailedError says that a template of this key could not be made, or used, a short
// while ago, so that it is not tried at every start.
type FailedError struct{ Reason string }

// Error gives the reason.
func (e *FailedError) Error() string {
	return "templates of this kind failed before: " + e.Reason
}

// failedFor is how long a failure is remembered.
const failedFor = 10 * time.Minute

// manifestVersion is the version of the manifest; any other is as good as none.
const manifestVersion = 1

const (
	ramName      = "ram"
	stateName    = "state"
	manifestName = "manifest.json"
	draftPrefix  = "draft-"
	lockSuffix   = ".lock"
	failedSuffix = ".failed"

	// maxManifest bounds the manifest, in bytes; an honest one has under 1 KiB.
	maxManifest = 64 << 10
	// maxState bounds the device state, in bytes; a microvm's is below 1 MiB.
	maxState = 64 << 20
	// minFree is the least space left on the file system when a template is begun, in
	// bytes: what a booted guest of any size has touched, and a reserve. A guest whose
	// memory file cannot grow dies.
	minFree = 1 << 30
)

// About says what a template is of, for people and for clearing up.
type About struct {
	Image string `json:"image"` // reference or digest
	Shape string `json:"shape"` // "512 MiB, 2 CPUs, tcg"
	Boot  string `json:"boot"`  // id of the host's boot; after another the template is stale
}

// Template is one that can be used now.
type Template struct {
	About

	Key     string
	RAM     string    // path of the memory file
	State   string    // path of the device state
	Created time.Time //
	Size    int64     // bytes it takes on disk
}

// manifest is what is recorded beside the files.
type manifest struct {
	Version     int                     `json:"version"`
	Key         string                  `json:"key"`
	About       About                   `json:"about"`
	Created     time.Time               `json:"created"`
	RAM         fingerprint.Fingerprint `json:"ram"`
	StateSHA256 string                  `json:"state_sha256"`
}

// Store is a directory of templates, shared by any number of processes.
type Store struct{ dir string }

// Open opens the store in dir, creating it, and removes what was left unfinished
// and what an earlier boot of the host has made: contents that were never synced
// may be gone with it.
func Open(dir, boot string) (*Store, error) {
	if err := paths.Ensure(dir); err != nil {
		return nil, err
	}
	s := &Store{dir: dir}
	return s, s.sweep(boot)
}

func (s *Store) sweep(boot string) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("cannot read templates: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if key, failed := strings.CutSuffix(name, failedSuffix); failed {
			_, _ = s.failed(key) // removes what is old
			continue
		}
		if key, draft := strings.CutPrefix(name, draftPrefix); draft {
			s.removeIfFree(key, name)
			continue
		}
		if !e.IsDir() {
			continue
		}
		if m, err := s.manifest(name); err != nil || m.About.Boot != boot {
			s.removeIfFree(name, name)
		}
	}
	return nil
}

// removeIfFree removes a directory unless a process is busy with its key. One
// that cannot be removed costs space only.
func (s *Store) removeIfFree(key, name string) {
	l, err := lockfile.Try(s.lockPath(key))
	if err != nil {
		return
	}
	defer l.Close()
	_ = os.RemoveAll(filepath.Join(s.dir, name))
}

func (s *Store) lockPath(key string) string { return filepath.Join(s.dir, key+lockSuffix) }

// Build makes a template's files: ram exists, empty, and state does not.
type Build func(ctx context.Context, ram, state string) error

// Get returns the template for key, 64 hex digits, and makes it with build when
// there is none that can be used; across processes only one builds. say, which
// may be nil, is told of a template that had to be given up, or of waiting.
func (s *Store) Get(ctx context.Context, key string, about About, build Build, say func(string)) (*Template, error) {
	if say == nil {
		say = func(string) {}
	}
	if t, err := s.Lookup(key); err == nil {
		return t, nil
	}
	l, err := lockfile.Wait(ctx, s.lockPath(key), func() { say("waiting for another process to make the template") })
	if err != nil {
		return nil, err
	}
	defer l.Close()
	t, err := s.Lookup(key)
	if err == nil {
		return t, nil
	}
	if reason, failed := s.failed(key); failed {
		return nil, &FailedError{reason}
	}
	if !errors.Is(err, ErrNotFound) {
		say("making the template anew: " + err.Error())
	}
	if err := s.make(ctx, key, about, build); err != nil {
		if ctx.Err() == nil {
			s.remember(key, err)
		}
		return nil, fmt.Errorf("cannot make a template: %w", err)
	}
	return s.Lookup(key)
}

// Fail gives up a template that could not be used.
func (s *Store) Fail(key string, reason error) {
	s.remember(key, reason)
	s.removeIfFree(key, key)
}

// remember notes a failure. One that cannot be noted is found out again.
func (s *Store) remember(key string, reason error) {
	text := reason.Error()
	_ = os.WriteFile(filepath.Join(s.dir, key+failedSuffix), []byte(text[:min(len(text), maxManifest)]), 0o600)
}

// failed returns the reason of a failure that is remembered.
func (s *Store) failed(key string) (reason string, failed bool) {
	path := filepath.Join(s.dir, key+failedSuffix)
	info, err := os.Stat(path)
	if err != nil {
		return "", false
	}
	if age := time.Since(info.ModTime()); age < 0 || age > failedFor {
		_ = os.Remove(path)
		return "", false
	}
	raw, err := os.ReadFile(path)
	return string(raw), err == nil
}

// make builds in a draft directory and puts it in place. The caller holds the lock.
func (s *Store) make(ctx context.Context, key string, about About, build Build) (err error) {
	if err := s.checkSpace(); err != nil {
		return err
	}
	draft := filepath.Join(s.dir, draftPrefix+key)
	if err := os.RemoveAll(draft); err != nil {
		return err
	}
	if err := os.Mkdir(draft, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(draft))
		}
	}()
	ram, state := filepath.Join(draft, ramName), filepath.Join(draft, stateName)
	if err := os.WriteFile(ram, nil, 0o600); err != nil {
		return err
	}
	if err := build(ctx, ram, state); err != nil {
		return err
	}
	if err := writeManifest(draft, key, about); err != nil {
		return err
	}
	final := filepath.Join(s.dir, key)
	if err := os.RemoveAll(final); err != nil { // clones of the old one keep its files open
		return err
	}
	return os.Rename(draft, final)
}

func (s *Store) checkSpace() error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return fmt.Errorf("cannot look at the space in %s: %w", s.dir, err)
	}
	free := st.Bavail * uint64(st.Bsize) //nolint:gosec // positive
	if free < minFree {
		return fmt.Errorf("%d MiB are free in %s, and %d needed; free some, or start with --cold", free>>20, s.dir, minFree>>20)
	}
	return nil
}

func writeManifest(dir, key string, about About) error {
	m := manifest{Version: manifestVersion, Key: key, About: about, Created: time.Now().UTC()}
	ram, err := os.Open(filepath.Join(dir, ramName))
	if err != nil {
		return err
	}
	defer ram.Close()
	if m.RAM, err = fingerprint.Of(ram); err != nil {
		return err
	}
	if m.StateSHA256, err = fingerprint.SHA256(filepath.Join(dir, stateName), maxState); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, manifestName), raw, 0o600)
}

// Lookup returns the template for key if it is whole: the device state is what was
// saved and nobody has written to the memory since. Otherwise the error
// says what is wrong; [ErrNotFound] if there is none.
func (s *Store) Lookup(key string) (*Template, error) {
	m, err := s.manifest(key)
	if err != nil {
		return nil, err
	}
	t := s.template(m)
	ram, err := os.Open(t.RAM)
	if err != nil {
		return nil, fmt.Errorf("cannot use the template: %w", err)
	}
	defer ram.Close()
	now, err := fingerprint.Of(ram)
	if err != nil {
		return nil, err
	}
	if now != m.RAM {
		return nil, fmt.Errorf("cannot use the template: its memory file %s was changed", t.RAM)
	}
	sum, err := fingerprint.SHA256(t.State, maxState)
	if err != nil {
		return nil, fmt.Errorf("cannot use the template: %w", err)
	}
	if sum != m.StateSHA256 {
		return nil, fmt.Errorf("cannot use the template: its state file %s is damaged", t.State)
	}
	return t, nil
}

func (s *Store) template(m *manifest) *Template {
	dir := filepath.Join(s.dir, m.Key)
	return &Template{
		About: m.About, Key: m.Key, Created: m.Created, Size: diskUsage(dir),
		RAM: filepath.Join(dir, ramName), State: filepath.Join(dir, stateName),
	}
}

// diskUsage counts the blocks, since a memory file is mostly holes.
func diskUsage(dir string) (bytes int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(dir, e.Name()), &st) == nil {
			bytes += st.Blocks * 512
		}
	}
	return bytes
}

func (s *Store) manifest(key string) (*manifest, error) {
	if !validKey(key) {
		return nil, fmt.Errorf("cannot use template key %q: not 64 hex digits", key)
	}
	f, err := os.Open(filepath.Join(s.dir, key, manifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot find template %.12s: %w", key, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use the template: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return nil, fmt.Errorf("cannot use the template: %w", err)
	}
	var m manifest
	if err := json.Unmarshal(raw, &m); err != nil || m.Version != manifestVersion || m.Key != key {
		return nil, fmt.Errorf("cannot use the template: its manifest in %s is damaged or of another version", filepath.Join(s.dir, key))
	}
	return &m, nil
}

func validKey(key string) bool {
	b, err := hex.DecodeString(key)
	return err == nil && len(b) == sha256.Size
}

// List returns the templates, the newest first, without checking them.
func (s *Store) List() ([]*Template, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list templates: %w", err)
	}
	var list []*Template
	for _, e := range entries {
		if m, err := s.manifest(e.Name()); err == nil {
			list = append(list, s.template(m))
		}
	}
	slices.SortFunc(list, func(a, b *Template) int { return b.Created.Compare(a.Created) })
	return list, nil
}

// Remove removes the template whose key begins with prefix, which must name one
// only. Clones of it go on.
func (s *Store) Remove(ctx context.Context, prefix string) (*Template, error) {
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(t *Template) bool { return !strings.HasPrefix(t.Key, prefix) })
	switch {
	case len(list) == 0:
		return nil, fmt.Errorf("cannot find template %q: %w", prefix, ErrNotFound)
	case len(list) > 1:
		return nil, fmt.Errorf("cannot tell which template %q means: %d begin so", prefix, len(list))
	}
	l, err := lockfile.Wait(ctx, s.lockPath(list[0].Key), nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Remove() }()
	if err := os.RemoveAll(filepath.Join(s.dir, list[0].Key)); err != nil {
		return nil, fmt.Errorf("cannot remove the template: %w", err)
	}
	return list[0], nil
}
