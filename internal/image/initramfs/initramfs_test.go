package initramfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gondolin/internal/testenv"
)

// list reads an archive the way the kernel does, for one that may hold several: "type perm name size".
func list(t *testing.T, b []byte) []string {
	t.Helper()
	var got []string
	for len(b) > 0 {
		if len(b) < 110 || string(b[:6]) != "070701" {
			t.Fatalf("no header at %q", b[:min(len(b), 16)])
		}
		var f [13]uint32
		for i := range f {
			if _, err := fmt.Sscanf(string(b[6+8*i:14+8*i]), "%08x", &f[i]); err != nil {
				t.Fatal(err)
			}
		}
		name := string(b[110 : 110+f[11]-1])
		data := (110 + int(f[11]) + 3) &^ 3
		end := (data + int(f[6]) + 3) &^ 3
		got = append(got, fmt.Sprintf("%o %s %d %d:%d", f[1], name, f[6], f[9], f[10]))
		b = b[end:]
	}
	return got
}

func TestAgent(t *testing.T) {
	var b bytes.Buffer
	if err := Agent(&b, strings.NewReader("agent"), 5); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"40755 dev 0 0:0", "40755 proc 0 0:0", "40755 sys 0 0:0", "40755 run 0 0:0", "40755 newroot 0 0:0",
		"20600 dev/console 0 5:1", "20666 dev/null 0 1:3", "100755 init 5 0:0", "0 TRAILER!!! 0 0:0",
	}
	if diff := cmp.Diff(want, list(t, b.Bytes())); diff != "" {
		t.Error(diff)
	}
	if b.Len()%4 != 0 {
		t.Errorf("length %d is not a multiple of 4", b.Len())
	}
}

func TestAgentShort(t *testing.T) {
	if err := Agent(&bytes.Buffer{}, strings.NewReader("agent"), 6); err == nil {
		t.Error("a binary shorter than its size was accepted")
	}
}

// TestCpioReads has another implementation read what ours writes, where there is one.
func TestCpioReads(t *testing.T) {
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Log("no cpio here; the guest boot tests read the archive with the kernel")
		return
	}
	var b bytes.Buffer
	if err := Modules(&b, []Module{{"a.ko", []byte("A")}, {"b.ko", []byte("BB")}}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(cpio, "--quiet", "-t")
	cmd.Stdin = &b
	out, err := cmd.CombinedOutput()
	want := "etc\netc/gondolin\nlib\nlib/modules\nlib/modules/a.ko\nlib/modules/b.ko\netc/gondolin/modules\n"
	if err != nil || string(out) != want {
		t.Errorf("cpio: %v\n%s", err, out)
	}
}

func TestModules(t *testing.T) {
	var b bytes.Buffer
	if err := Modules(&b, []Module{{"virtio.ko", []byte("V")}, {"a-b.ko", []byte("XX")}}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b.Bytes(), []byte("/lib/modules/virtio.ko\n/lib/modules/a-b.ko\n\x00")) {
		t.Errorf("no module list in order in %q", b.Bytes())
	}
	for _, name := range []string{"", "../x.ko", "a/b.ko", "a\nb.ko"} {
		if err := Modules(&bytes.Buffer{}, []Module{{Name: name}}); err == nil {
			t.Errorf("module name %q accepted", name)
		}
	}
}

func TestWriterRefusesNames(t *testing.T) {
	for _, name := range []string{"", "/abs", "a/../b", "./a", "a//b", "a/", "a\x00b", strings.Repeat("x", 5000)} {
		w := NewWriter(&bytes.Buffer{})
		if err := w.Dir(name, 0o755); err == nil {
			t.Errorf("name %q accepted", name)
		}
		if err := w.Close(); err == nil {
			t.Errorf("Close forgot the error of %q", name)
		}
	}
}

type fullDisk struct{ left int }

var errFull = errors.New("full")

func (d *fullDisk) Write(p []byte) (int, error) {
	if len(p) > d.left {
		return 0, errFull
	}
	d.left -= len(p)
	return len(p), nil
}

func TestWriterReportsWriteErrors(t *testing.T) {
	for left := range 4000 {
		err := Agent(&fullDisk{left}, strings.NewReader("agent"), 5)
		if err == nil {
			return
		}
		if !errors.Is(err, errFull) {
			t.Fatalf("with %d bytes: %v", left, err)
		}
	}
	t.Error("the archive never fit")
}

func TestCompose(t *testing.T) {
	testenv.CheckLeaks(t)
	base := t.TempDir()
	dir := filepath.Join(base, "cache")
	modules := filepath.Join(base, "modules.cpio")
	var b bytes.Buffer
	if err := Modules(&b, []Module{{"a.ko", []byte("A")}}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(modules, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	parts := Parts{Modules: modules, ModulesDigest: "sha256:" + hex.EncodeToString(sum[:]), Agent: []byte("agent 1")}
	path, err := Compose(t.Context(), dir, parts)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(got, b.Bytes()) || len(list(t, got)) != 7+9 {
		t.Errorf("composed archive has entries %q", list(t, got))
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	// A second call reads nothing but the name.
	if err := os.Remove(modules); err != nil {
		t.Fatal(err)
	}
	if again, err := Compose(t.Context(), dir, parts); err != nil || again != path {
		t.Errorf("second call: %s, %v", again, err)
	}
	parts.Agent = []byte("agent 2")
	if _, err := Compose(t.Context(), dir, parts); err == nil {
		t.Error("composed without modules")
	}
	testenv.CheckEmpty(t, dir, filepath.Base(path))
}

func TestComposeRefusesAlteredModules(t *testing.T) {
	base := t.TempDir()
	modules := filepath.Join(base, "modules.cpio")
	if err := os.WriteFile(modules, []byte("altered!"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Compose(t.Context(), filepath.Join(base, "c"), Parts{Modules: modules, ModulesDigest: "sha256:00", Agent: []byte("a")})
	if err == nil || !strings.Contains(err.Error(), "has digest") {
		t.Errorf("altered modules: %v", err)
	}
}

func TestPrune(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-2 * composedAge)
	for i := range maxComposed + 3 {
		path := filepath.Join(dir, fmt.Sprintf("%02d.cpio", i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		at := old.Add(time.Duration(i) * time.Minute)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	prune(dir, filepath.Join(dir, "00.cpio"))
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != maxComposed+1 || left[0].Name() != "00.cpio" || left[1].Name() != "03.cpio" {
		t.Errorf("left %v %v", left, err)
	}
}
