package paths_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gondolin/internal/paths"
	"gondolin/internal/testenv"
)

func TestFromEnv(t *testing.T) {
	for name, tt := range map[string]struct {
		env  map[string]string
		goos string
		want paths.Dirs
		err  string
	}{
		"linux defaults": {
			env: map[string]string{"HOME": "/h"}, goos: "linux",
			want: paths.Dirs{
				Cache: "/h/.cache/gondolin", Data: "/h/.local/share/gondolin", State: "/h/.local/state/gondolin",
				Config: "/h/.config/gondolin", Runtime: "/h/.local/state/gondolin/run",
			},
		},
		"mac defaults": {
			env: map[string]string{"HOME": "/Users/h"}, goos: "darwin",
			want: paths.Dirs{
				Cache: "/Users/h/Library/Caches/gondolin", Data: "/Users/h/Library/Application Support/gondolin",
				State: "/Users/h/Library/Application Support/gondolin", Config: "/Users/h/Library/Application Support/gondolin",
				Runtime: "/Users/h/Library/Application Support/gondolin/run",
			},
		},
		"xdg needs no home, relative ignored": {
			env: map[string]string{
				"XDG_CACHE_HOME": "/c", "XDG_DATA_HOME": "/d", "XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "/f", "XDG_RUNTIME_DIR": "rel",
			}, goos: "darwin",
			want: paths.Dirs{Cache: "/c/gondolin", Data: "/d/gondolin", State: "/s/gondolin", Config: "/f/gondolin", Runtime: "/s/gondolin/run"},
		},
		"home overrides all": {
			env: map[string]string{"GONDOLIN_HOME": "/g/../g", "XDG_CACHE_HOME": "/c", "XDG_RUNTIME_DIR": "/r"}, goos: "linux",
			want: paths.Dirs{Cache: "/g/cache", Data: "/g/data", State: "/g/state", Config: "/g/config", Runtime: "/g/run"},
		},
		"relative GONDOLIN_HOME": {env: map[string]string{"GONDOLIN_HOME": "x"}, goos: "linux", err: "not an absolute path"},
		"nothing set":            {goos: "linux", err: "set HOME"},
	} {
		got, err := paths.FromEnv(func(k string) string { return tt.env[k] }, tt.goos)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want one with %q", name, err, tt.err)
			}
			continue
		}
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
}

func TestEnsure(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "a", "b")
	if err := paths.Ensure(dir); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("mode %v, %v; want 0700", info.Mode(), err)
	}
	if err := paths.Ensure("relative"); err == nil {
		t.Error("a relative directory was accepted")
	}
	for _, mode := range []os.FileMode{0o770, 0o707} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if err := paths.Ensure(dir); err == nil || !strings.Contains(err.Error(), "others may write") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := paths.Ensure(dir); err == nil || !strings.Contains(err.Error(), "anybody may rename") {
		t.Errorf("below a world-writable directory: %v", err)
	}
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := paths.Check(file); err == nil {
		t.Error("a file passed for a directory")
	}
}

func TestEnsureForeign(t *testing.T) {
	testenv.NeedsRoot(t)
	dir := filepath.Join(t.TempDir(), "theirs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if err := paths.Ensure(dir); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Errorf("foreign directory: %v", err)
	}
	ours := filepath.Join(dir, "ours") // which its owner's owner can rename away
	if err := paths.Ensure(ours); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
		t.Errorf("below a foreign directory: %v", err)
	}
}
