package build

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gondolin/internal/testenv"
)

func TestSources(t *testing.T) {
	const keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
	for name, tt := range map[string]struct {
		files map[string]string
		want  []string // nil: an error
	}{
		"deb822": {
			files: map[string]string{"sources.list.d/debian.sources": `Types: deb deb-src
# a comment
URIs: http://m.invalid/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://m.invalid/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 /usr/share/keyrings/debian-archive-keyring.gpg
`},
			want: []string{
				"deb " + keyring + " http://m.invalid/debian bookworm main non-free-firmware",
				"deb " + keyring + " http://m.invalid/debian bookworm-updates main non-free-firmware",
				"deb " + keyring + " http://m.invalid/debian-security bookworm-security main",
			},
		},
		"one-line, twice": {
			files: map[string]string{
				"sources.list":          "deb http://m.invalid/debian-security/ bookworm-security main\n# deb x y z\ndeb-src http://m.invalid/debian bookworm main\ndeb [ arch=amd64 trusted=yes ] http://m.invalid/debian bookworm main # why\n",
				"sources.list.d/a.list": "deb http://m.invalid/debian bookworm main\n",
			},
			want: []string{
				"deb " + keyring + " http://m.invalid/debian bookworm main",
				"deb " + keyring + " http://m.invalid/debian-security/ bookworm-security main",
			},
		},
		"third parties": {
			files: map[string]string{
				"sources.list":                  "deb http://m.invalid/debian bookworm main\n",
				"sources.list.d/docker.list":    "deb [signed-by=/etc/apt/keyrings/docker.gpg] https://d.invalid/linux/debian bookworm stable\n",
				"sources.list.d/evil.list":      "deb [signed-by=/etc/apt/keyrings/evil.gpg] https://d.invalid/debian bookworm main\n",
				"sources.list.d/unsigned.list":  "deb https://d.invalid/packages bookworm main\n",
				"sources.list.d/inline.sources": "Types: deb\nURIs: https://i.invalid/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n",
				"sources.list.d/off.sources":    "Enabled: no\nTypes: deb\nURIs: https://o.invalid/debian\nSuites: bookworm\nComponents: main\n",
				"sources.list.d/x.disabled":     "deb http://x.invalid/debian bookworm main\n",
			},
			want: []string{"deb " + keyring + " http://m.invalid/debian bookworm main"},
		},
		"other release": {files: map[string]string{"sources.list": "deb http://m.invalid/debian trixie main\n"}},
		"only updates":  {files: map[string]string{"sources.list": "deb http://m.invalid/debian bookworm-updates main\n"}},
		"broken":        {files: map[string]string{"sources.list": "deb\ndeb [x http://m\ndeb http://m.invalid/debian\nnonsense\n"}},
		"none":          {},
	} {
		etc := t.TempDir()
		for file, text := range tt.files {
			path := filepath.Join(etc, "apt", file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		found, err := host{etc: etc, id: "debian", codename: "bookworm"}.sources()
		if (err == nil) != (tt.want != nil) {
			t.Errorf("%s: error %v", name, err)
		}
		var got []string
		for _, s := range found {
			got = append(got, s.line())
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func FuzzSources(f *testing.F) {
	f.Add("deb [signed-by=/x] http://m/debian bookworm main", "Types: deb\nURIs: a\nSuites: b\nComponents: main\n")
	f.Add("deb [", " continued\n\n:\n")
	f.Fuzz(func(t *testing.T, oneLine, deb822 string) {
		h := host{id: "debian", codename: "bookworm"}
		one, _ := parseOneLine(strings.NewReader(oneLine))
		two, _ := parseDeb822(strings.NewReader(deb822))
		for _, s := range slices.Concat(one, two) {
			if s, ok := h.ofDebian(s); ok && (strings.ContainsAny(s.line(), "\n\r") || s.signedBy == "") {
				t.Errorf("made the line %q", s.line())
			}
		}
	})
}

func TestModuleOrderRefusesCycles(t *testing.T) {
	dir := t.TempDir()
	for name, info := range map[string]string{"a": "depends=b", "b": "depends=a"} {
		path := filepath.Join(dir, "kernel", name+".ko")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, moduleFile(info), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "modules.builtin"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := openModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.closure(t.Context(), []string{"a"}); err == nil || !strings.Contains(err.Error(), "depends on itself") {
		t.Errorf("cycle: %v", err)
	}
	if _, err := k.closure(t.Context(), []string{"nonesuch"}); err == nil || !strings.Contains(err.Error(), "nonesuch") {
		t.Errorf("missing module: %v", err)
	}
}

func TestCompressedModules(t *testing.T) {
	for _, tool := range []string{"xz", "zstd", "gzip"} {
		bin := testenv.NeedsTool(t, tool)
		dir := t.TempDir()
		plain := filepath.Join(dir, "a.ko")
		if err := os.WriteFile(plain, []byte("module"), 0o600); err != nil {
			t.Fatal(err)
		}
		// The tools keep the extension rule: .xz, .zst, .gz beside the file.
		if err := run(t.Context(), command(t.Context(), bin, "-q", "-k", plain), nil); err != nil {
			t.Fatal(err)
		}
		packed := plain + map[string]string{"xz": ".xz", "zstd": ".zst", "gzip": ".gz"}[tool]
		got, err := readModule(t.Context(), packed)
		if err != nil || string(got) != "module" {
			t.Errorf("%s: %q %v", tool, got, err)
		}
		if name, ok := moduleName("x/virtio-rng.ko" + filepath.Ext(packed)); !ok || name != "virtio_rng" {
			t.Errorf("name %q", name)
		}
		if err := os.WriteFile(packed, []byte("junk"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readModule(t.Context(), packed); err == nil {
			t.Errorf("%s: junk was decompressed", tool)
		}
	}
}

func FuzzModuleNeeds(f *testing.F) {
	f.Add(moduleFile("depends=a,b\x00softdep=pre: c d post: e"))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, data []byte) {
		needs, softs, err := moduleNeeds(data)
		if err != nil && (needs != nil || softs != nil) {
			t.Error("an error came with results")
		}
	})
}

func TestModuleNeeds(t *testing.T) {
	needs, softs, err := moduleNeeds(moduleFile("license=GPL\x00depends=a,b\x00softdep=pre: c d post: e\x00name=x"))
	if err != nil || !slices.Equal(needs, []string{"a", "b"}) || !slices.Equal(softs, []string{"c", "d"}) {
		t.Errorf("%q %q %v", needs, softs, err)
	}
}

func TestOutputIsBounded(t *testing.T) {
	o := &output{}
	for range 100 {
		if _, err := o.Write([]byte(strings.Repeat("x", 3*maxLine) + "\r" + strings.Repeat("y", maxLine/2) + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	if o.kept > outputTail || len(o.lines) == 0 || len(o.lines[len(o.lines)-1]) != maxLine/2 {
		t.Errorf("kept %d bytes in %d lines", o.kept, len(o.lines))
	}
}

func TestWithoutPasswords(t *testing.T) {
	got := withoutPasswords("deb [signed-by=/k] https://me:secret@m.invalid/debian bookworm main\n")
	if want := "deb [signed-by=/k] https://m.invalid/debian bookworm main"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCancelledBeforeStart(t *testing.T) {
	s := newStub(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.builder(Options{}).build(ctx); err == nil {
		t.Error("built although cancelled")
	}
}
