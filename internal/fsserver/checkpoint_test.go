package fsserver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"gondolin/vfs"
)

// rest is what the guest's pump asks, and waits for.
func (c *client) rest() {
	c.t.Helper()
	if errno, body := c.call(opRest, 0, nil); errno != 0 || len(body) != 0 {
		c.t.Fatalf("rest: %v, %d bytes", errno, len(body))
	}
}

// resume serves a copy of c's guest.
func resume(t *testing.T, s *Server, cfg Config) *client {
	t.Helper()
	encoded, _, err := s.Save()
	if err != nil {
		t.Fatal(err)
	}
	copied, err := Resume(cfg, encoded)
	if err != nil {
		t.Fatal(err)
	}
	return dial(t, copied)
}

func readBody(fh uint64, size uint32) []byte {
	return append(u64s(fh, 0), u32s(size, 0, 0, 0, 0, 0)...)
}

func writeBody(fh, offset uint64, data string) []byte {
	body := append(u64s(fh, offset), u32s(uint32(len(data)), 0)...)
	body = append(body, u64s(0)...)
	body = append(body, u32s(openRDWR, 0)...)
	return append(body, data...)
}

// What the guest's kernel holds goes on in a copy: nodes, names below them, open
// files, and the place in a listing; in the original too.
func TestSaveAndResume(t *testing.T) {
	dir := t.TempDir()
	for i := range 5 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("file", i)), []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := Config{Mounts: []vfs.FS{vfs.Dir(dir)}}
	c, s := start(t, cfg)
	root := c.node(opLookup, rootID, text("0"))
	sub := c.node(opMkdir, root, append(u32s(0o755, 0), text("sub")...))
	id, fh := c.makeFile(sub, "open")
	c.want(opWrite, id, writeBody(fh, 0, "before"), 0)
	gone, goneFH := c.makeFile(sub, "gone")
	c.want(opUnlink, sub, text("gone"), 0)
	_, out := c.call(opOpendir, root, u32s(0, 0))
	dirFH := binary.LittleEndian.Uint64(out)
	_, first := c.call(opReaddir, root, append(u64s(dirFH, 0), u32s(100, 0, 0, 0, 0, 0)...))
	next := binary.LittleEndian.Uint64(first[8:])
	c.rest()

	if _, nameless, err := s.Save(); err != nil || nameless != 1 {
		t.Errorf("%d nameless files, %v", nameless, err)
	}
	copied := resume(t, s, cfg)
	for _, side := range []*client{copied, c} {
		if _, body := side.call(opRead, id, readBody(fh, 100)); string(body) != "before" {
			t.Errorf("read %q", body)
		}
	}
	copied.want(opWrite, id, writeBody(fh, 6, " after"), 0)
	if b, err := os.ReadFile(filepath.Join(dir, "sub", "open")); err != nil || string(b) != "before after" {
		t.Errorf("%q, %v", b, err)
	}
	copied.want(opRead, gone, readBody(goneFH, 1), vfs.ESTALE)
	c.want(opRead, gone, readBody(goneFH, 1), 0)
	if again := copied.node(opLookup, root, text("sub")); again != sub {
		t.Errorf("sub is node %d, was %d", again, sub)
	}
	if n := copied.node(opMkdir, sub, append(u32s(0o755, 0), text("new")...)); n <= gone {
		t.Errorf("node number %d is used again", n)
	}
	_, rest := copied.call(opReaddir, root, append(u64s(dirFH, next), u32s(4096, 0, 0, 0, 0, 0)...))
	if _, same := c.call(opReaddir, root, append(u64s(dirFH, next), u32s(4096, 0, 0, 0, 0, 0)...)); !bytes.Equal(rest, same) || len(rest) == 0 {
		t.Errorf("the listing goes on with %d bytes, not %d", len(rest), len(same))
	}
	copied.want(opRelease, id, u64s(fh, 0, 0), 0)
}

// A file that another has taken the place of is not served as the one that was open.
func TestResumeOfAnotherFile(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Mounts: []vfs.FS{vfs.Dir(dir)}}
	c, s := start(t, cfg)
	root := c.node(opLookup, rootID, text("0"))
	id, fh := c.makeFile(root, "f")
	c.rest()
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, "other"), []byte("secret"), 0o600),
		os.Rename(filepath.Join(dir, "other"), filepath.Join(dir, "f")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	copied := resume(t, s, cfg)
	copied.want(opRead, id, readBody(fh, 10), vfs.ESTALE)
	copied.want(opWrite, id, writeBody(fh, 0, "x"), vfs.ESTALE)
	copied.want(opRelease, id, u64s(fh, 0, 0), 0)
}

// slow holds every Lstat up until it is told.
type slow struct {
	vfs.FS
	entered, leave chan struct{}
}

func (f slow) Lstat(name string) (vfs.Attr, error) {
	if name != "." {
		f.entered <- struct{}{}
		<-f.leave
	}
	return f.FS.Lstat(name)
}

// The answer to a request for rest is the last one.
func TestRestIsLast(t *testing.T) {
	f := slow{vfs.Memory(), make(chan struct{}), make(chan struct{})}
	c, _ := start(t, Config{Mounts: []vfs.FS{f}})
	root := c.node(opLookup, rootID, text("0"))
	c.send(message(opLookup, 1000, root, text("x")))
	<-f.entered
	c.send(message(opRest, 1001, 0, nil))
	close(f.leave)
	for _, want := range []uint64{1000, 1001} {
		head := make([]byte, replyHeaderSize)
		if _, err := io.ReadFull(c.conn, head); err != nil {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint64(head[8:]); got != want {
			t.Errorf("reply to %d, want %d", got, want)
		}
	}
}

func TestResumeRefuses(t *testing.T) {
	good := func() state {
		return state{
			Version: stateVersion, Mounts: 1, LastNode: 9, LastHandle: 5, Settings: &Settings{Major: 7},
			Nodes: []nodeState{
				{ID: 3, Kind: uint32(vfs.ModeDir), Known: true, Lookups: 1, Links: []linkState{{Parent: 2, Name: "d"}}},
				{ID: 4, Kind: uint32(vfs.ModeRegular), Known: true, Links: []linkState{{Parent: 3, Name: "f"}}},
			},
			Handles: []handleState{{ID: 1, Node: 4}, {ID: 2, Node: 3, Dir: true, Listing: []entryState{{Name: "f"}}}},
		}
	}
	try := func(st state) error {
		encoded, err := cbor.Marshal(st)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Resume(Config{Mounts: []vfs.FS{vfs.Memory()}}, encoded)
		if err == nil {
			s.closeAll()
		}
		return err
	}
	if err := try(good()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*state){
		"version":         func(s *state) { s.Version++ },
		"mounts":          func(s *state) { s.Mounts = 2 },
		"node twice":      func(s *state) { s.Nodes[1].ID = 3 },
		"root":            func(s *state) { s.Nodes[0].ID = 1 },
		"node to come":    func(s *state) { s.LastNode = 3 },
		"mount":           func(s *state) { s.Nodes[0].Mount = 1 },
		"negative mount":  func(s *state) { s.Nodes[0].Mount = -1 },
		"no parent":       func(s *state) { s.Nodes[1].Links[0].Parent = 8 },
		"parent a file":   func(s *state) { s.Nodes[0].Links[0].Parent = 4 },
		"name":            func(s *state) { s.Nodes[1].Links[0].Name = "../x" },
		"empty name":      func(s *state) { s.Nodes[1].Links[0].Name = "" },
		"name twice":      func(s *state) { s.Nodes[1].Links = append(s.Nodes[1].Links, s.Nodes[1].Links[0]) },
		"handle's node":   func(s *state) { s.Handles[0].Node = 7 },
		"handle twice":    func(s *state) { s.Handles[1].ID = 1 },
		"handle to come":  func(s *state) { s.LastHandle = 1 },
		"directory":       func(s *state) { s.Handles[0].Dir = true },
		"listing":         func(s *state) { s.Handles[1].Listing[0].Name = "a/b" },
		"too many handle": func(s *state) { s.Handles = make([]handleState, 5000) },
	} {
		st := good()
		spoil(&st)
		if err := try(st); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := Resume(Config{}, []byte("no state")); err == nil {
		t.Error("garbage was accepted")
	}
}

// FuzzResume checks that no state, however it came to be, makes the server panic.
func FuzzResume(f *testing.F) {
	s := New(Config{Mounts: []vfs.FS{vfs.Memory()}})
	encoded, _, err := s.Save()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encoded)
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := Resume(Config{Mounts: []vfs.FS{vfs.Memory()}, Limits: Limits{Nodes: 100, Handles: 10, DirEntries: 100}}, in)
		if err != nil {
			return
		}
		if _, _, err := s.Save(); err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		s.closeAll()
	})
}
