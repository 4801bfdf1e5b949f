package audit_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gondolin/internal/audit"
)

func openFile(t *testing.T, name string, o audit.FileOptions) *audit.File {
	t.Helper()
	f, err := audit.OpenFile(name, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func record(t *testing.T, f *audit.File, n int) {
	t.Helper()
	l := audit.To(f)
	for range n {
		if err := l.Record(audit.Event{Kind: audit.DNS, Decision: audit.Allow, Name: "a.test", Reason: strings.Repeat("x", 900)}); err != nil {
			t.Fatal(err)
		}
	}
}

func verify(t *testing.T, name string, want audit.Hash) audit.Report {
	t.Helper()
	r, err := audit.Verify(name, want)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestFileContinuesOverRunsAndRotations(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	for _, late := range []time.Duration{0, -1, time.Millisecond} {
		f := openFile(t, name, audit.FileOptions{MaxFile: audit.MaxLine, Sync: late})
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() { record(t, f, 150) })
		}
		group.Wait()
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r := verify(t, name, audit.Hash{})
	if !r.Closed || r.Files < 5 || r.Begin != (audit.Hash{}) || len(r.Torn) != 0 {
		t.Errorf("%+v", r)
	}
	if min := uint64(1800 + r.Files - 1 + 3 + 3); r.Events < min || r.Events > min+1 {
		t.Errorf("%d events", r.Events)
	}
	files, err := audit.Files(name)
	if err != nil || len(files) != r.Files || files[len(files)-1] != name {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files { // by itself, from the hash it says it continues
		info, err := os.Stat(file)
		if err != nil || info.Size() > audit.MaxLine || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info, err)
		}
		if _, err := audit.VerifyLines(bytes.NewReader(read(t, file)), audit.Hash{}); err != nil {
			t.Error(err)
		}
	}
	if err := os.Remove(files[0]); err != nil { // an archive may begin later
		t.Fatal(err)
	}
	if r := verify(t, name, audit.Hash{}); r.Begin == (audit.Hash{}) {
		t.Errorf("%+v", r)
	}
	if err := os.Remove(files[2]); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Verify(name, audit.Hash{}); err == nil || !strings.Contains(err.Error(), "a file is missing") {
		t.Error(err)
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTampering changes a log in every way but cutting its end, which only a hash
// kept elsewhere shows.
func TestTampering(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	f := openFile(t, name, audit.FileOptions{})
	record(t, f, 5)
	head := f.Head()
	record(t, f, 5)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	good := read(t, name)
	if r := verify(t, name, head); !r.Known || !r.Closed {
		t.Errorf("%+v", r)
	}
	lines := bytes.SplitAfter(good, []byte("\n"))
	lines = lines[:len(lines)-1]
	join := func(l ...[]byte) []byte { return bytes.Join(l, nil) }
	for what, bad := range map[string][]byte{
		"changed":   bytes.Replace(good, []byte("a.test"), []byte("b.test"), 1),
		"removed":   join(slices.Delete(slices.Clone(lines), 4, 5)...),
		"first":     join(lines[1:]...),
		"reordered": join(slices.Concat(lines[:3], [][]byte{lines[4], lines[3]}, lines[5:])...),
		"added":     join(slices.Insert(slices.Clone(lines), 4, lines[4])...),
		"foreign":   append(slices.Clone(good), "{}\n"...),
		"spaces":    bytes.Replace(good, []byte(`,"seq"`), []byte(`, "seq"`), 1),
		"hash case": bytes.Replace(good, []byte(`"hash":"`), []byte(`"hash":"A`), 1),
		"long":      append(slices.Clone(good), bytes.Repeat([]byte("x"), 2*audit.MaxLine)...),
	} {
		if _, err := audit.VerifyLines(bytes.NewReader(bad), audit.Hash{}); err == nil {
			t.Errorf("%s: not noticed", what)
		}
	}
	cut := join(lines[:4]...)
	r, err := audit.VerifyLines(bytes.NewReader(cut), audit.Hash{})
	if err != nil || r.Closed {
		t.Errorf("cut: %+v, %v", r, err)
	}
	if _, err := audit.VerifyLines(bytes.NewReader(cut), head); err == nil {
		t.Error("cut: the hash of a later line is not missed")
	}
}

func TestTornLineStaysAndTheChainGoesOn(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	f := openFile(t, name, audit.FileOptions{})
	record(t, f, 3)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		whole := read(t, name)
		if err := os.WriteFile(name, whole[:len(whole)-40], 0o600); err != nil { // killed within its last line
			t.Fatal(err)
		}
		f = openFile(t, name, audit.FileOptions{})
		record(t, f, 1)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if r := verify(t, name, audit.Hash{}); len(r.Torn) != 2 || r.Files != 3 || !r.Closed {
		t.Errorf("%+v", r)
	}
	if err := os.WriteFile(name, []byte(`{"v":1`), 0o600); err != nil { // killed within its first
		t.Fatal(err)
	}
	f = openFile(t, name, audit.FileOptions{})
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFileRefuses(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "audit.jsonl")
	f := openFile(t, name, audit.FileOptions{})
	if _, err := audit.OpenFile(name, audit.FileOptions{}); err == nil || !strings.Contains(err.Error(), "another VM") {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := audit.To(f).Record(audit.Event{}); err == nil {
		t.Error("recorded after Close")
	}
	for what, content := range map[string]string{"text": "hello\n", "old": `{"time":"2026-01-02T03:04:05Z","kind":"dns"}` + "\n", "long": strings.Repeat("x", 3*audit.MaxLine)} {
		other := filepath.Join(dir, what)
		if err := os.WriteFile(other, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := audit.OpenFile(other, audit.FileOptions{}); err == nil {
			t.Errorf("%s was accepted", what)
		}
		if string(read(t, other)) != content {
			t.Errorf("%s was changed", what)
		}
	}
	for _, bad := range []string{dir, filepath.Join(dir, "none", "x"), os.DevNull} {
		if _, err := audit.OpenFile(bad, audit.FileOptions{}); err == nil || !strings.HasPrefix(err.Error(), "cannot ") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := audit.OpenFile(name, audit.FileOptions{MaxFile: 10}); err == nil {
		t.Error("a bound below one line was accepted")
	}
}

func TestFullIsAnErrorAndLosesNothing(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.jsonl")
	f := openFile(t, name, audit.FileOptions{MaxFile: audit.MaxLine, MaxTotal: 2 * audit.MaxLine})
	l := audit.To(f)
	events := uint64(0)
	for l.Err() == nil {
		if l.Record(audit.Event{Kind: audit.DNS, Name: strings.Repeat("a", 1000)}) == nil {
			events++
		}
	}
	if !errors.Is(l.Err(), audit.ErrFull) {
		t.Fatal(l.Err())
	}
	if err := f.Close(); !errors.Is(err, audit.ErrFull) {
		t.Error(err)
	}
	r := verify(t, name, audit.Hash{})
	if own := uint64(r.Files + 1); r.Events != events+own || !r.Closed {
		t.Errorf("%d events recorded, %+v", events, r)
	}
	size := int64(0)
	files, _ := audit.Files(name)
	for _, file := range files {
		size += int64(len(read(t, file)))
	}
	if size > 2*audit.MaxLine {
		t.Errorf("%d bytes", size)
	}
	for range 10 { // the next runs fail too, at the latest when they open the log
		f, err := audit.OpenFile(name, audit.FileOptions{MaxTotal: 2 * audit.MaxLine})
		if err == nil {
			err = errors.Join(audit.To(f).Record(audit.Event{Kind: audit.DNS, Name: strings.Repeat("a", 1000)}), f.Close())
		}
		if !errors.Is(err, audit.ErrFull) {
			t.Fatal(err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	var out bytes.Buffer
	l := audit.New(&out)
	_ = l.Record(audit.Event{Kind: audit.DNS, Name: "a.test", Time: time.Unix(1, 0)})
	_ = l.Record(audit.Event{Kind: audit.Request, Host: "b.test", Time: time.Unix(2, 0)})
	f.Add(out.Bytes(), uint(100))
	f.Add([]byte("{}\n"), uint(0))
	f.Fuzz(func(t *testing.T, log []byte, at uint) {
		report, err := audit.VerifyLines(bytes.NewReader(log), audit.Hash{})
		if err != nil || report.Events == 0 || len(log) == 0 {
			return
		}
		// Whatever verifies, does no longer once a byte of a whole line differs.
		whole := bytes.LastIndexByte(log, '\n') + 1
		changed := bytes.Clone(log)
		changed[int(at%uint(whole))] ^= 1
		if again, err := audit.VerifyLines(bytes.NewReader(changed), audit.Hash{}); err == nil && again.Events == report.Events && again.Head == report.Head {
			t.Fatalf("byte %d of %q does not matter", int(at%uint(whole)), log)
		}
	})
}
