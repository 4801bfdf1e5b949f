package template

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	key   = strings.Repeat("ab", 32)
	about = About{Image: "debian", Shape: "1 CPU", Boot: "this"}
)

func open(t *testing.T, dir, boot string) *Store {
	t.Helper()
	s, err := Open(dir, boot)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(_ context.Context, ram, state string) error {
	return errors.Join(os.WriteFile(ram, []byte("memory"), 0o600), os.WriteFile(state, []byte("devices"), 0o600))
}

func mustGet(t *testing.T, s *Store) *Template {
	t.Helper()
	tmpl, err := s.Get(t.Context(), key, about, write, nil)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

// noDrafts checks that nothing half-made is left.
func noDrafts(t *testing.T, dir string) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(dir, draftPrefix+"*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestGetBuildsOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, "this")
	var built atomic.Int32
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			other, err := Open(dir, "this") // as another process would
			if err != nil {
				t.Error(err)
				return
			}
			_, err = other.Get(t.Context(), key, about, func(ctx context.Context, ram, state string) error {
				built.Add(1)
				return write(ctx, ram, state)
			}, nil)
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if built.Load() != 1 {
		t.Errorf("built %d times", built.Load())
	}
	if b, err := os.ReadFile(mustGet(t, s).RAM); string(b) != "memory" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	noDrafts(t, dir)
}

func TestDamageIsNoticed(t *testing.T) {
	for name, damage := range map[string]func(tmpl *Template) error{
		"memory written": func(tmpl *Template) error {
			return errors.Join(os.Chmod(tmpl.RAM, 0o600), os.WriteFile(tmpl.RAM, []byte("MEMORY"), 0o600))
		},
		"memory truncated": func(tmpl *Template) error { return os.Truncate(tmpl.RAM, 1) },
		"memory gone":      func(tmpl *Template) error { return os.Remove(tmpl.RAM) },
		"state changed":    func(tmpl *Template) error { return os.WriteFile(tmpl.State, []byte("DEVICES"), 0o600) },
		"state gone":       func(tmpl *Template) error { return os.Remove(tmpl.State) },
		"manifest gone":    func(tmpl *Template) error { return os.Remove(filepath.Join(filepath.Dir(tmpl.RAM), manifestName)) },
		"manifest nonsense": func(tmpl *Template) error {
			return os.WriteFile(filepath.Join(filepath.Dir(tmpl.RAM), manifestName), []byte("{"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir(), "this")
			tmpl := mustGet(t, s)
			if err := damage(tmpl); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Lookup(key); err == nil {
				t.Fatal("not noticed")
			}
			var said []string
			again, err := s.Get(t.Context(), key, about, write, func(line string) { said = append(said, line) })
			if err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(again.RAM); string(b) != "memory" || err != nil {
				t.Errorf("%q, %v", b, err)
			}
			if name != "manifest gone" && len(said) != 1 {
				t.Errorf("said %q", said)
			}
		})
	}
}

func TestFailedBuildLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, "this")
	full := errors.New("no space left on device")
	_, err := s.Get(t.Context(), key, about, func(_ context.Context, ram, _ string) error {
		return errors.Join(os.WriteFile(ram, []byte("half"), 0o600), full)
	}, nil)
	if !errors.Is(err, full) {
		t.Error(err)
	}
	noDrafts(t, dir)
	// It is not tried again at once, and then it is.
	var failed *FailedError
	if _, err := s.Get(t.Context(), key, about, write, nil); !errors.As(err, &failed) || !strings.Contains(failed.Reason, full.Error()) {
		t.Error(err)
	}
	long := time.Now().Add(-2 * failedFor)
	if err := os.Chtimes(filepath.Join(dir, key+failedSuffix), long, long); err != nil {
		t.Fatal(err)
	}
	mustGet(t, s)
}

func TestUnusableTemplateIsGivenUp(t *testing.T) {
	s := open(t, t.TempDir(), "this")
	mustGet(t, s)
	s.Fail(key, errors.New("cannot restore"))
	var failed *FailedError
	if _, err := s.Get(t.Context(), key, about, write, nil); !errors.As(err, &failed) {
		t.Error(err)
	}
}

func TestOpenSweeps(t *testing.T) {
	dir := t.TempDir()
	mustGet(t, open(t, dir, "this"))
	if err := os.Mkdir(filepath.Join(dir, draftPrefix+strings.Repeat("cd", 32)), 0o700); err != nil {
		t.Fatal(err)
	}
	if list, err := open(t, dir, "this").List(); len(list) != 1 || err != nil || list[0].Size == 0 {
		t.Errorf("%v, %v", list, err)
	}
	noDrafts(t, dir)
	// After another boot of the host nothing is left.
	if list, err := open(t, dir, "next").List(); len(list) != 0 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
}

func TestRemove(t *testing.T) {
	s := open(t, t.TempDir(), "this")
	mustGet(t, s)
	if _, err := s.Remove(t.Context(), "ff"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, err := s.Remove(t.Context(), key[:8]); err != nil {
		t.Error(err)
	}
	if _, err := s.Lookup(key); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}
