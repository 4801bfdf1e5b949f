package checkpoint

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type about struct{ Name string }

// fill puts content into every file of a draft; the memory is mostly holes.
func fill(t *testing.T, d *Draft) {
	t.Helper()
	for _, name := range []string{Devices, Files} {
		must(t, os.WriteFile(d.Path(name), []byte(name), 0o600))
	}
	ram, err := os.Create(d.Path(RAM))
	must(t, err)
	defer ram.Close()
	must(t, ram.Truncate(16<<20))
	for _, at := range []int64{0, 5<<20 + 3, 16<<20 - 1} {
		_, err := ram.WriteAt([]byte{1}, at)
		must(t, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func save(t *testing.T, dir string, life Lifetime) *Checkpoint {
	t.Helper()
	d, err := Begin(dir)
	must(t, err)
	fill(t, d)
	c, err := d.Commit(about{"this"}, life)
	must(t, err)
	return c
}

func TestSaveAndOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ckpt")
	save(t, dir, Lasting)
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	c, err := Open(dir)
	must(t, err)
	var a about
	if err := c.Read(&a); err != nil || a.Name != "this" || time.Since(c.Created()) > time.Minute {
		t.Errorf("%+v, %v", a, err)
	}
	if size := c.Size(); size == 0 || size > 4<<20 {
		t.Errorf("%d bytes on disk", size)
	}
	if _, err := Begin(dir); !errors.Is(err, ErrExists) {
		t.Errorf("began one that exists: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	must(t, c.Remove())
	if _, err := Begin(filepath.Join(t.TempDir(), "no", "parent")); err == nil {
		t.Error("began where there is no directory")
	}
}

func duplicate(t *testing.T, from, to string, options ...string) {
	t.Helper()
	if out, err := exec.Command("cp", append(append([]string{"-r"}, options...), from, to)...).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
}

// A checkpoint can be moved, and copied with or without its holes.
func TestCopies(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "ckpt")
	save(t, dir, Lasting)
	for _, sparse := range []string{"always", "never"} {
		to := filepath.Join(parent, sparse)
		duplicate(t, dir, to, "--sparse="+sparse)
		if _, err := Open(to); err != nil {
			t.Errorf("%s: %v", sparse, err)
		}
	}
	must(t, os.Rename(dir, dir+"-moved"))
	if _, err := Open(dir + "-moved"); err != nil {
		t.Error(err)
	}
	fleeting := filepath.Join(parent, "fleeting")
	save(t, fleeting, Fleeting)
	if _, err := Open(fleeting); err != nil {
		t.Error(err)
	}
	duplicate(t, fleeting, fleeting+"-copy")
	if _, err := Open(fleeting + "-copy"); err == nil {
		t.Error("a copy whose memory cannot be checked was opened")
	}
}

func TestDamageIsNoticed(t *testing.T) {
	edit := func(name string, f func(b []byte) []byte) func(string) error {
		return func(dir string) error {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, name), f(b), 0o600)
		}
	}
	remove := func(name string) func(string) error {
		return func(dir string) error { return os.Remove(filepath.Join(dir, name)) }
	}
	replace := func(from, to string) func([]byte) []byte {
		return func(b []byte) []byte { return []byte(strings.Replace(string(b), from, to, 1)) }
	}
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	flip := func(b []byte) []byte { b[len(b)/3]++; return b }
	for name, damage := range map[string]func(string) error{
		"memory truncated":  edit(RAM, cut),
		"memory changed":    edit(RAM, flip),
		"memory missing":    remove(RAM),
		"devices truncated": edit(Devices, cut),
		"devices changed":   edit(Devices, flip),
		"devices missing":   remove(Devices),
		"files changed":     edit(Files, flip),
		"manifest cut":      edit(manifestName, func(b []byte) []byte { return b[:len(b)/2] }),
		"manifest empty":    edit(manifestName, func([]byte) []byte { return nil }),
		"manifest missing":  remove(manifestName),
		"other version":     edit(manifestName, replace(`"version": 1`, `"version": 99`)),
		"path in it":        edit(manifestName, replace(`"files":`, `"../x":`)),
		"all of it":         os.RemoveAll,
	} {
		dir := filepath.Join(t.TempDir(), "ckpt")
		save(t, dir, Lasting)
		must(t, damage(dir))
		if _, err := Open(dir); err == nil || !strings.HasPrefix(err.Error(), "cannot use the checkpoint "+dir) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Of two that make the same one, the second fails and leaves the first's alone.
func TestTwoMakers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ckpt")
	first, err := Begin(dir)
	must(t, err)
	second, err := Begin(dir) // does not sweep the first
	must(t, err)
	fill(t, first)
	fill(t, second)
	_, err = first.Commit(about{"first"}, Fleeting)
	must(t, err)
	if _, err := second.Commit(about{"second"}, Fleeting); !errors.Is(err, ErrExists) {
		t.Errorf("%v", err)
	}
	c, err := Open(dir)
	must(t, err)
	var a about
	if err := c.Read(&a); err != nil || a.Name != "first" {
		t.Errorf("%+v, %v", a, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(entries) != 1 {
		t.Errorf("left %v, %v", entries, err)
	}
}

// TestMain is also a maker that is killed in the middle, for TestAbandoned.
func TestMain(m *testing.M) {
	if dir := os.Getenv("CHECKPOINT_ABANDON"); dir != "" {
		d, err := Begin(dir)
		if err != nil {
			os.Exit(3)
		}
		_ = os.WriteFile(d.Path(RAM), make([]byte, 1<<20), 0o600)
		os.Stdout.WriteString("ready\n")
		_, _ = io.Copy(io.Discard, os.Stdin) // until killed
	}
	os.Exit(m.Run())
}

// What a killed process leaves is never taken for a checkpoint, and is swept.
func TestAbandoned(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "ckpt")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CHECKPOINT_ABANDON="+dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	in, err := cmd.StdinPipe()
	must(t, err)
	defer in.Close()
	must(t, cmd.Start())
	_, err = io.ReadFull(out, make([]byte, 6))
	must(t, err)
	save(t, filepath.Join(parent, "other"), Fleeting) // while it lives
	if drafts(t, parent) != 1 {
		t.Error("the draft of a living process was swept")
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if _, err := Open(dir); err == nil {
		t.Error("half a checkpoint was opened")
	}
	if n := drafts(t, parent); n != 0 {
		t.Errorf("%d drafts are left", n)
	}
}

func drafts(t *testing.T, parent string) int {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(parent, draftPrefix+"*"))
	must(t, err)
	return len(list)
}
