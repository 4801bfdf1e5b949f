package checkpoint

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// exported returns a checkpoint and its archive.
func exported(t *testing.T) (*Checkpoint, []byte) {
	t.Helper()
	c := save(t, filepath.Join(t.TempDir(), "ckpt"), Lasting)
	var buf bytes.Buffer
	must(t, c.Export(&buf))
	return c, buf.Bytes()
}

func TestExportAndImport(t *testing.T) {
	from, archive := exported(t)
	if len(archive) > 64<<10 {
		t.Errorf("16 MiB of zeros are %d bytes", len(archive))
	}
	dir := filepath.Join(t.TempDir(), "copy")
	_, err := Import(bytes.NewReader(archive), dir)
	must(t, err)
	to, err := Open(dir)
	must(t, err)
	var a about
	if err := to.Read(&a); err != nil || a.Name != "this" {
		t.Errorf("%+v, %v", a, err)
	}
	for _, name := range []string{RAM, Devices, Files} {
		was, err := os.ReadFile(from.Path(name))
		must(t, err)
		is, err := os.ReadFile(to.Path(name))
		must(t, err)
		if !bytes.Equal(was, is) {
			t.Errorf("%s differs", name)
		}
	}
	if size := to.Size(); size > 4<<20 {
		t.Errorf("%d bytes on disk: the memory is not sparse", size)
	}
	if _, err := Import(bytes.NewReader(archive), dir); err == nil {
		t.Error("it was imported over another")
	}
}

// entry is one of an archive that somebody made.
type entry struct {
	name    string
	kind    byte
	content string
}

func archiveOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	z, err := zstd.NewWriter(&buf)
	must(t, err)
	w := tar.NewWriter(z)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Size: int64(len(e.content)), Mode: 0o600}
		if e.kind == tar.TypeSymlink {
			h.Linkname, h.Size = e.content, 0
		}
		must(t, w.WriteHeader(h))
		if h.Size > 0 {
			_, err := w.Write([]byte(e.content))
			must(t, err)
		}
	}
	must(t, w.Close())
	must(t, z.Close())
	return buf.Bytes()
}

func TestImportRefuses(t *testing.T) {
	from, archive := exported(t)
	read := func(name string) string {
		b, err := os.ReadFile(from.Path(name))
		must(t, err)
		return string(b)
	}
	whole := map[string]entry{}
	for _, name := range []string{manifestName, Devices, Files, RAM} {
		whole[name] = entry{name, tar.TypeReg, read(name)}
	}
	ram := whole[RAM]
	ram.content = "x" + ram.content[1:]
	for name, bad := range map[string][]byte{
		"nothing":          nil,
		"not compressed":   []byte("hello"),
		"empty":            archiveOf(t),
		"truncated":        archive[:len(archive)/2],
		"no memory":        archiveOf(t, whole[manifestName], whole[Devices], whole[Files]),
		"changed memory":   archiveOf(t, whole[manifestName], whole[Devices], whole[Files], ram),
		"changed devices":  archiveOf(t, whole[manifestName], entry{Devices, tar.TypeReg, "other"}, whole[Files], whole[RAM]),
		"no manifest":      archiveOf(t, whole[Devices], whole[Files], whole[RAM]),
		"a file too many":  archiveOf(t, whole[manifestName], whole[Devices], whole[Files], whole[RAM], entry{"more", tar.TypeReg, ""}),
		"a file outside":   archiveOf(t, entry{"../" + manifestName, tar.TypeReg, "{}"}),
		"an absolute path": archiveOf(t, entry{"/etc/passwd", tar.TypeReg, ""}),
		"a link":           archiveOf(t, whole[manifestName], entry{Devices, tar.TypeSymlink, "/etc/passwd"}),
		"a file twice":     archiveOf(t, whole[manifestName], whole[manifestName]),
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			if _, err := Import(bytes.NewReader(bad), filepath.Join(parent, "ckpt")); err == nil ||
				!strings.Contains(err.Error(), "cannot import the checkpoint") {
				t.Errorf("error %v", err)
			}
			if entries, err := os.ReadDir(parent); err != nil || len(entries) != 0 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
		})
	}
}

// Whatever an archive holds, it is imported whole or leaves nothing.
func FuzzImport(f *testing.F) {
	f.Add([]byte("hello"))
	dir := f.TempDir()
	d, err := Begin(filepath.Join(dir, "seed"))
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{Devices, RAM} {
		if err := os.WriteFile(d.Path(name), []byte(name), 0o600); err != nil {
			f.Fatal(err)
		}
	}
	c, err := d.Commit(about{"seed"}, Lasting)
	if err != nil {
		f.Fatal(err)
	}
	var buf bytes.Buffer
	if err := c.Export(&buf); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		parent := t.TempDir()
		_, err := Import(bytes.NewReader(raw), filepath.Join(parent, "ckpt"))
		entries, rerr := os.ReadDir(parent)
		if rerr != nil || (err == nil) != (len(entries) == 1) {
			t.Errorf("%v, left %v", err, entries)
		}
	})
}

func TestList(t *testing.T) {
	dir := t.TempDir()
	if names, err := List(filepath.Join(dir, "none")); err != nil || names != nil {
		t.Errorf("%v, %v", names, err)
	}
	save(t, filepath.Join(dir, "b"), Lasting)
	save(t, filepath.Join(dir, "a"), Lasting)
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	if names, err := List(dir); err != nil || strings.Join(names, " ") != "a b" {
		t.Errorf("%v, %v", names, err)
	}
}
