package image

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"gondolin/internal/fingerprint"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"gondolin/internal/testenv"
)

func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "images"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// addImage stores an image whose kernel is the given text.
func addImage(t *testing.T, s *Store, kernel string, refs ...string) string {
	t.Helper()
	st, err := s.Stage()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	dir := filepath.Join(st.Dir, "image")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"kernel": kernel, "modules.cpio": "mods", "root.erofs": "root"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := goodManifest()
	digest, err := st.Add(t.Context(), dir, &m, refs...)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func goodManifest() Manifest {
	return Manifest{
		Version: ManifestVersion, Arch: runtime.GOARCH, OS: "Debian GNU/Linux 12 (bookworm)", KernelVersion: "6.1.0-1-cloud",
		Kernel:  File{Name: "kernel", SHA256: strings.Repeat("a", 64), Size: 1},
		Modules: File{Name: "modules.cpio", SHA256: strings.Repeat("b", 64), Size: 2},
		Root:    File{Name: "root.erofs", SHA256: strings.Repeat("c", 64), Size: 3}, RootFormat: RootErofs,
		Cmdline: []string{"quiet"}, ModuleOrder: []string{"/lib/modules/a.ko"}, Env: []string{"LANG=C"}, Packages: []string{"bash 5"},
	}
}

func TestStore(t *testing.T) {
	testenv.CheckLeaks(t)
	s := openStore(t)
	digest := addImage(t, s, "kernel 1", "debian:latest", "debian:bookworm")
	hex := strings.TrimPrefix(digest, "sha256:")
	for _, selector := range []string{"debian", "debian:latest", "debian:bookworm", digest, hex, hex[:8], "sha256:" + hex[:3], s.objectDir(digest), s.objectDir(digest) + "/"} {
		img, err := s.Resolve(t.Context(), selector)
		if err != nil {
			t.Errorf("%s: %v", selector, err)
			continue
		}
		if img.Digest != digest || img.Arch != runtime.GOARCH || img.RootFormat != "erofs" {
			t.Errorf("%s: resolved to %+v", selector, img)
		}
		for _, path := range []string{img.Kernel, img.Modules, img.Root} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o400 {
				t.Errorf("%s: %v %v", path, info, err)
			}
		}
	}
	for _, selector := range []string{"nothing", "debian:13", "ffffffff", "sha256:ffff", t.TempDir() + "/none"} {
		if _, err := s.Resolve(t.Context(), selector); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", selector, err)
		}
	}
	for _, selector := range []string{"", "Debian", "a:b:c", "sha256:xyz", "sha256:", ":x", "a..b", "-x", strings.Repeat("a", 200), "..", "a\x00b"} {
		if img, err := s.Resolve(t.Context(), selector); err == nil {
			t.Errorf("%q: resolved to %s", selector, img.Digest)
		}
	}
	other := "arm64"
	if runtime.GOARCH == other {
		other = "amd64"
	}
	if _, err := s.ResolveArch(t.Context(), "debian", other); !errors.Is(err, ErrNotFound) {
		t.Errorf("other architecture by name: %v", err)
	}
	if _, err := s.ResolveArch(t.Context(), digest, other); err == nil || !strings.Contains(err.Error(), "it is for") {
		t.Errorf("other architecture by digest: %v", err)
	}
}

func TestListTagRemove(t *testing.T) {
	s := openStore(t)
	one := addImage(t, s, "kernel 1", "debian:latest", "debian:old")
	two := addImage(t, s, "kernel 2", "debian:latest")
	if one == two {
		t.Fatal("different images have one digest")
	}
	if err := s.Tag(t.Context(), "debian:old", "mine"); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(t.Context(), one, "../../x"); err == nil {
		t.Error("a traversing name was given")
	}
	refsOf := func() map[string][]string {
		t.Helper()
		list, err := s.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		refs := make(map[string][]string)
		for _, e := range list {
			if e.Problem != "" || e.Manifest == nil {
				t.Errorf("%s: %s", e.Digest, e.Problem)
			}
			refs[e.Digest] = e.Refs
		}
		return refs
	}
	if diff := cmp.Diff(map[string][]string{one: {"debian:old", "mine:latest"}, two: {"debian:latest"}}, refsOf()); diff != "" {
		t.Error(diff)
	}
	steps := []struct {
		remove string
		want   []string
	}{
		{"mine", []string{"mine:latest"}},
		{"debian:old", []string{"debian:old", one}},
		{two, []string{"debian:latest", two}},
	}
	for _, step := range steps {
		got, err := s.Remove(t.Context(), step.remove)
		if diff := cmp.Diff(step.want, got); err != nil || diff != "" {
			t.Errorf("remove %s: %v %s", step.remove, err, diff)
		}
	}
	if left := refsOf(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := s.Remove(t.Context(), "mine"); !errors.Is(err, ErrNotFound) {
		t.Errorf("second removal: %v", err)
	}
	testenv.CheckEmpty(t, filepath.Join(s.Dir(), "staging"))
	testenv.CheckEmpty(t, filepath.Join(s.Dir(), "verified"))
	testenv.CheckEmpty(t, filepath.Join(s.Dir(), "refs"))
}

// alter changes a stored file behind the store's back.
func alter(t *testing.T, path, text string) {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAlteredFilesAreNoticed(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"content": func(t *testing.T, path string) {
			t.Helper()
			alter(t, path, "KERNEL 1")
		},
		"truncated": func(t *testing.T, path string) {
			t.Helper()
			alter(t, path, "ker")
		},
		"missing": func(t *testing.T, path string) {
			t.Helper()
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		"symlink": func(t *testing.T, path string) {
			t.Helper()
			if err := os.Rename(path, path+".real"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(path+".real", path); err != nil {
				t.Fatal(err)
			}
		},
		"directory": func(t *testing.T, path string) {
			t.Helper()
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
				t.Fatal(err)
			}
		},
		"same times": func(t *testing.T, path string) {
			t.Helper()
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			alter(t, path, "KERNEL 1")
			if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			testenv.CheckLeaks(t)
			s := openStore(t)
			digest := addImage(t, s, "kernel 1", "debian")
			if _, err := s.Resolve(t.Context(), "debian"); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(s.objectDir(digest), "kernel")
			damage(t, path)
			_, err := s.Resolve(t.Context(), "debian")
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "gondolin image rm") {
				t.Errorf("error %v names not the file and what to do", err)
			}
			// The next step it names must work.
			if _, err := s.Remove(t.Context(), shortDigest(digest)); err != nil {
				t.Errorf("cannot remove the broken image: %v", err)
			}
		})
	}
}

func TestAlteredManifestIsNoticed(t *testing.T) {
	s := openStore(t)
	digest := addImage(t, s, "kernel 1", "debian")
	path := filepath.Join(s.objectDir(digest), ManifestName)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	alter(t, path, strings.Replace(string(data), "quiet", "debug", 1))
	if _, err := s.Resolve(t.Context(), "debian"); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("altered manifest: %v", err)
	}
	list, err := s.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Problem == "" {
		t.Errorf("list does not show the problem: %+v %v", list, err)
	}
}

// TestHashesOnce proves that an unchanged image is not read again: its file is replaced in the record by how another
// file looks, and then the wrong content passes.
func TestHashesOnce(t *testing.T) {
	s := openStore(t)
	digest := addImage(t, s, "kernel 1", "debian")
	path := filepath.Join(s.objectDir(digest), "kernel")
	alter(t, path, "KERNEL 1")
	f, err := openRegular(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	known := s.readLooks(digest)
	if known[path], err = fingerprint.Of(f); err != nil {
		t.Fatal(err)
	}
	if err := s.writeLooks(digest, known); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(t.Context(), "debian"); err != nil {
		t.Errorf("hashed again: %v", err)
	}
	if err := os.Remove(s.looksPath(digest)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve(t.Context(), "debian"); err == nil {
		t.Error("not hashed without a record")
	}
	for _, junk := range []string{"", "{", `{"x":1}`, `[]`, strings.Repeat(" ", maxVerifiedBytes+1)} {
		if err := os.WriteFile(s.looksPath(digest), []byte(junk), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Resolve(t.Context(), "debian"); err == nil {
			t.Errorf("record %.20q vouched for a wrong file", junk)
		}
	}
}

func TestAddReplacesBroken(t *testing.T) {
	s := openStore(t)
	digest := addImage(t, s, "kernel 1", "debian")
	alter(t, filepath.Join(s.objectDir(digest), "kernel"), "broken")
	if again := addImage(t, s, "kernel 1", "debian"); again != digest {
		t.Fatalf("digest %s, then %s", digest, again)
	}
	if _, err := s.Resolve(t.Context(), "debian"); err != nil {
		t.Error(err)
	}
	addImage(t, s, "kernel 1") // a good one stays
	testenv.CheckEmpty(t, filepath.Join(s.Dir(), "staging"))
}

func TestCancelledResolve(t *testing.T) {
	s := openStore(t)
	digest := addImage(t, s, "kernel 1", "debian")
	if err := os.Remove(s.looksPath(digest)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Resolve(ctx, "debian"); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "image rm") {
		t.Errorf("cancelled: %v", err)
	}
}

func TestSweep(t *testing.T) {
	testenv.CheckLeaks(t)
	s := openStore(t)
	live, err := s.Stage()
	if err != nil {
		t.Fatal(err)
	}
	dead, err := s.Stage()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dead.Dir, "half"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	heir, err := unix.Dup(int(dead.Lock().Fd())) // as a process has it that dead's maker has started
	if err != nil {
		t.Fatal(err)
	}
	dead.lock.Close() // as the kernel does when a process dies
	if _, err := Open(s.Dir()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead.Dir); err != nil {
		t.Errorf("swept although somebody still works in it: %v", err)
	}
	if err := unix.Close(heir); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.Dir()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dead.Dir); !os.IsNotExist(err) {
		t.Errorf("the dead one's directory is still there: %v", err)
	}
	if _, err := os.Stat(live.Dir); err != nil {
		t.Errorf("the live one's directory: %v", err)
	}
	if err := errors.Join(live.Close(), live.Close()); err != nil {
		t.Error(err)
	}
	testenv.CheckEmpty(t, filepath.Join(s.Dir(), "staging"))
}

func TestLock(t *testing.T) {
	testenv.CheckLeaks(t)
	s := openStore(t)
	unlock, err := s.Lock(t.Context(), "build", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := s.Lock(ctx, "build", cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("second lock: %v", err)
	}
	var second func()
	var lockErr error
	waiting := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { second, lockErr = s.Lock(t.Context(), "build", func() { close(waiting) }) })
	<-waiting
	unlock()
	wg.Wait()
	if lockErr != nil {
		t.Fatal(lockErr)
	}
	second()
	if _, err := s.Lock(t.Context(), "../x", nil); err == nil {
		t.Error("a lock outside the store was taken")
	}
}

func TestConcurrentAdds(t *testing.T) {
	s := openStore(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { addImage(t, s, "same", "debian") })
		wg.Go(func() {
			if _, err := Open(s.Dir()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := s.Resolve(t.Context(), "debian"); err != nil {
		t.Error(err)
	}
	list, err := s.List(t.Context())
	if err != nil || len(list) != 1 || time.Since(list[0].Added) > time.Hour {
		t.Errorf("%+v %v", list, err)
	}
}

func TestManifestRefusals(t *testing.T) {
	for name, spoil := range map[string]func(*Manifest){
		"version":        func(m *Manifest) { m.Version = 2 },
		"arch":           func(m *Manifest) { m.Arch = "../x" },
		"format":         func(m *Manifest) { m.RootFormat = "ext9" },
		"traversal":      func(m *Manifest) { m.Root.Name = "../root" },
		"absolute":       func(m *Manifest) { m.Kernel.Name = "/etc/passwd" },
		"hidden":         func(m *Manifest) { m.Kernel.Name = ".." },
		"empty name":     func(m *Manifest) { m.Kernel.Name = "" },
		"comma":          func(m *Manifest) { m.Kernel.Name = "a,b" },
		"manifest":       func(m *Manifest) { m.Kernel.Name = ManifestName },
		"same name":      func(m *Manifest) { m.Kernel.Name = m.Root.Name },
		"digest":         func(m *Manifest) { m.Kernel.SHA256 = strings.Repeat("A", 64) },
		"short digest":   func(m *Manifest) { m.Kernel.SHA256 = "aa" },
		"negative":       func(m *Manifest) { m.Root.Size = -1 },
		"huge":           func(m *Manifest) { m.Root.Size = 1 << 62 },
		"cmdline spaces": func(m *Manifest) { m.Cmdline = []string{"a init=/bin/sh"} },
		"cmdline quote":  func(m *Manifest) { m.Cmdline = []string{`"a`} },
		"env":            func(m *Manifest) { m.Env = []string{"nothing"} },
		"escape":         func(m *Manifest) { m.OS = "\x1b[2J" },
		"module":         func(m *Manifest) { m.ModuleOrder = []string{"lib/x.ko"} },
		"module dots":    func(m *Manifest) { m.ModuleOrder = []string{"/lib/../x.ko"} },
		"modules":        func(m *Manifest) { m.ModuleOrder = make([]string, maxModules+1) },
		"packages":       func(m *Manifest) { m.Packages = make([]string, maxPackages+1) },
		"long":           func(m *Manifest) { m.Packages = []string{strings.Repeat("x", maxText+1)} },
	} {
		m := goodManifest()
		if err := m.Validate(); err != nil {
			t.Fatal(err)
		}
		spoil(&m)
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseManifest(strings.NewReader(string(data))); err == nil {
			t.Errorf("%s: accepted", name)
		} else if !strings.HasPrefix(err.Error(), "cannot read image manifest") {
			t.Errorf("%s: %v", name, err)
		}
	}
	good, _, err := (&Manifest{}).encode()
	if err == nil {
		t.Errorf("an empty manifest was written: %s", good)
	}
	m := goodManifest()
	data, _, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"trailing": string(data) + "{}",
		"unknown":  strings.Replace(string(data), `"arch"`, `"extra": 1, "arch"`, 1),
		"large":    string(data) + strings.Repeat(" ", maxManifestBytes),
		"nothing":  "",
		"array":    "[]",
	} {
		if _, err := ParseManifest(strings.NewReader(text)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	m := goodManifest()
	data, _, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(data))
	f.Add(`{"version":1}`)
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseManifest(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, file := range m.files() {
			if filepath.Base(file.Name) != file.Name || !filepath.IsLocal(file.Name) || file.Size <= 0 {
				t.Errorf("accepted file %+v", file)
			}
		}
		if m.Size() <= 0 {
			t.Errorf("accepted a total of %d bytes", m.Size())
		}
		again, _, err := m.encode()
		if err != nil {
			t.Fatalf("read but cannot write: %v", err)
		}
		if _, err := parseManifest(again); err != nil {
			t.Errorf("wrote but cannot read: %v", err)
		}
	})
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"debian", "debian:latest", "a.b-c_d:1.2", "../x", "a:b:c", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := ParseRef(s)
		if err != nil {
			return
		}
		if !filepath.IsLocal(ref.Name) || !filepath.IsLocal(ref.Tag) || strings.ContainsAny(ref.Name+ref.Tag, "/\\*?[") {
			t.Errorf("%q became %+v", s, ref)
		}
		if again, err := ParseRef(ref.String()); err != nil || again != ref {
			t.Errorf("%v read again is %v, %v", ref, again, err)
		}
	})
}

// TestSweepOddNames puts files into the staging area whose names lead elsewhere without their suffix.
func TestSweepOddNames(t *testing.T) {
	s := openStore(t)
	digest := addImage(t, s, "kernel", "debian")
	live, err := s.Stage()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".lock", "..lock", "...lock"} {
		if err := os.WriteFile(filepath.Join(s.Dir(), "staging", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(s.Dir()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(live.Dir); err != nil {
		t.Errorf("a staging directory in use: %v", err)
	}
	if img, err := s.Resolve(t.Context(), "debian"); err != nil || img.Digest != digest {
		t.Errorf("the image: %v", err)
	}
	if err := live.Close(); err != nil {
		t.Error(err)
	}
}

// TestAddOutside names a file elsewhere: it must not be touched.
func TestAddOutside(t *testing.T) {
	s := openStore(t)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	st, err := s.Stage()
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	rel, err := filepath.Rel(st.Dir, outside)
	if err != nil {
		t.Fatal(err)
	}
	m := goodManifest()
	m.Kernel.Name = rel
	if _, err := st.Add(t.Context(), st.Dir, &m); err == nil {
		t.Error("added")
	}
	if info, err := os.Stat(outside); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}
