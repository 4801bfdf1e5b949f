package fsserver

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"sync/atomic"
	"testing"

	"gondolin/vfs"
)

// TestForgottenFound forgets a node that an open file or a child keeps in memory, and looks it up again.
func TestForgottenFound(t *testing.T) {
	c, s := start(t, Config{Mounts: []vfs.FS{vfs.Memory()}})
	root := c.node(opLookup, rootID, text("0"))
	before := inTable(s)
	file, fh := c.makeFile(root, "f")
	dir := c.node(opMkdir, root, append(u32s(0o755, 0), text("d")...))
	child := c.node(opMkdir, dir, append(u32s(0o755, 0), text("e")...))
	for name, id := range map[string]uint64{"f": file, "d": dir} {
		c.send(message(opForget, 0, id, u64s(1)))
		c.waitForgotten(id)
		again := c.node(opLookup, root, text(name))
		c.want(opGetattr, again, u64s(0, 0), 0)
		c.send(message(opForget, 0, again, u64s(1)))
		c.waitForgotten(again)
	}
	c.want(opRelease, file, u64s(fh, 0, 0), 0)
	c.send(message(opForget, 0, child, u64s(1)))
	c.waitForgotten(child)
	if after := inTable(s); after != before {
		t.Errorf("%+v, and before %+v", after, before)
	}
}

// TestNamesBounded makes one file known under more names than there may be nodes.
func TestNamesBounded(t *testing.T) {
	c, s := start(t, Config{Mounts: []vfs.FS{vfs.Memory()}, Limits: Limits{Nodes: 8}})
	root := c.node(opLookup, rootID, text("0"))
	file, fh := c.makeFile(root, "f")
	failed := 0
	for i := range 100 {
		if errno, _ := c.call(opLink, root, append(u64s(file), text(fmt.Sprint(i))...)); errno == vfs.ENOMEM {
			failed++
		}
	}
	if names := inTable(s).names; names > s.table.limit || failed == 0 {
		t.Errorf("%d names of one node are remembered, and the limit is %d", names, s.table.limit)
	}
	c.want(opUnlink, root, text("f"), 0)
	c.want(opGetattr, file, u64s(0, 0), 0)
	for i := range 100 {
		c.want(opUnlink, root, text(fmt.Sprint(i)), 0)
	}
	if names := inTable(s).names; names != 0 {
		t.Errorf("%d names are left", names)
	}
	c.want(opRelease, file, u64s(fh, 0, 0), 0)
}

// TestChildOfFile uses entries that are not directories as parents: a provider that follows links must not be asked.
func TestChildOfFile(t *testing.T) {
	m := vfs.NewMemory(vfs.MemoryConfig{})
	if err := m.Symlink("target", "link", vfs.Create{}); err != nil {
		t.Fatal(err)
	}
	asked := &askedFS{FS: m}
	c, _ := start(t, Config{Mounts: []vfs.FS{asked}})
	root := c.node(opLookup, rootID, text("0"))
	link := c.node(opLookup, root, text("link"))
	file, _ := c.makeFile(root, "f")
	asked.calls.Store(0)
	for _, parent := range []uint64{link, file} {
		c.want(opLookup, parent, text("x"), vfs.ENOTDIR)
		c.want(opMkdir, parent, append(u32s(0o755, 0), text("x")...), vfs.ENOTDIR)
		c.want(opRename, parent, append(u64s(root), append(text("x"), text("y")...)...), vfs.ENOTDIR)
		c.want(opRename, root, append(u64s(parent), append(text("f"), text("y")...)...), vfs.ENOTDIR)
	}
	if n := asked.calls.Load(); n != 0 {
		t.Errorf("the provider was asked %d times", n)
	}
}

// askedFS counts calls with paths.
type askedFS struct {
	vfs.FS
	calls atomic.Int64
}

func (a *askedFS) Lstat(name string) (vfs.Attr, error) {
	if name != "." {
		a.calls.Add(1)
	}
	return a.FS.Lstat(name)
}

func (a *askedFS) Mkdir(name string, create vfs.Create) error {
	a.calls.Add(1)
	return a.FS.Mkdir(name, create)
}

func (a *askedFS) Rename(from, to string, flags vfs.RenameFlag) error {
	a.calls.Add(1)
	return a.FS.Rename(from, to, flags)
}

// nilErrorFS returns errors whose methods panic.
type nilErrorFS struct{ vfs.FS }

func (nilErrorFS) Mkdir(string, vfs.Create) error { return (*fs.PathError)(nil) }

func TestPanicInError(t *testing.T) {
	c, s := start(t, Config{Mounts: []vfs.FS{nilErrorFS{vfs.Memory()}}})
	root := c.node(opLookup, rootID, text("0"))
	c.want(opMkdir, root, append(u32s(0o755, 0), text("d")...), vfs.EIO)
	if s.panics.Load() != 1 {
		t.Errorf("%d panics counted", s.panics.Load())
	}
}

// TestAppendFlag changes O_APPEND of an open file, as fcntl(2) does: each WRITE carries the flags of the moment.
func TestAppendFlag(t *testing.T) {
	m := vfs.Memory()
	c, _ := start(t, Config{Mounts: []vfs.FS{m}})
	root := c.node(opLookup, rootID, text("0"))
	_, out := c.call(opCreate, root, append(u32s(openRDWR|openAppend, 0o100644, 0, 0), text("f")...))
	id, fh := binary.LittleEndian.Uint64(out), binary.LittleEndian.Uint64(out[entryOutSize:])
	put := func(off uint64, content string, flags uint32) {
		t.Helper()
		body := append(u64s(fh, off), u32s(uint32(len(content)), 0, 0, 0, flags, 0)...)
		c.want(opWrite, id, append(body, content...), 0)
	}
	put(0, "abc", openRDWR|openAppend)
	put(0, "def", openRDWR|openAppend)
	put(0, "XY", openRDWR)
	f, err := m.Open("f", 0, vfs.Create{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 6)
	if _, err := f.ReadAt(buf, 0); err != nil || string(buf) != "XYcdef" {
		t.Errorf("the file holds %q, %v", buf, err)
	}
}

// TestOpenReplaced opens a node whose name has become another file's behind the guest's back: it must neither be opened
// under the old node's identity nor truncated.
func TestOpenReplaced(t *testing.T) {
	m := vfs.NewMemory(vfs.MemoryConfig{Shared: true})
	c, s := start(t, Config{Mounts: []vfs.FS{m}})
	root := c.node(opLookup, rootID, text("0"))
	file, fh := c.makeFile(root, "f")
	c.want(opRelease, file, u64s(fh, 0, 0), 0)
	other, err := m.Open("g", vfs.Write|vfs.CreateFile, vfs.Create{Perm: 0o644})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.WriteAt([]byte("keep"), 0); err != nil {
		t.Fatal(err)
	}
	if err := m.Rename("g", "f", 0); err != nil {
		t.Fatal(err)
	}
	c.want(opOpen, file, u32s(openRDWR|openTrunc, 0), vfs.ESTALE)
	c.want(opOpen, file, u32s(0, 0), vfs.ESTALE)
	if a, err := other.Stat(); err != nil || a.Size != 4 {
		t.Errorf("the other file has %d bytes, %v", a.Size, err)
	}
	if n := handleCount(s); n != 0 {
		t.Errorf("%d handles counted", n)
	}
	now := c.node(opLookup, root, text("f"))
	errno, out := c.call(opOpen, now, u32s(openRDWR|openTrunc, 0))
	if a, err := other.Stat(); errno != 0 || err != nil || a.Size != 0 {
		t.Errorf("O_TRUNC: %v; %d bytes, %v", errno, a.Size, err)
	}
	c.want(opRelease, now, u64s(binary.LittleEndian.Uint64(out), 0, 0), 0)
}

// lyingFS opens files that accept any change, however they were opened.
type lyingFS struct{ vfs.FS }

func (l lyingFS) Open(name string, flags vfs.OpenFlag, create vfs.Create) (vfs.File, error) {
	return l.FS.Open(name, flags|vfs.Write, create)
}

// TestReadHandle changes a file through a handle that is open for reading: the server does not leave that to providers.
func TestReadHandle(t *testing.T) {
	c, _ := start(t, Config{Mounts: []vfs.FS{lyingFS{vfs.Memory()}}})
	root := c.node(opLookup, rootID, text("0"))
	file, _ := c.makeFile(root, "f")
	_, out := c.call(opOpen, file, u32s(0, 0))
	fh := binary.LittleEndian.Uint64(out)
	size := append(u32s(attrSize|attrFH, 0), u64s(fh, 100, 0, 0, 0, 0)...)
	c.want(opSetattr, file, append(size, make([]byte, 32)...), vfs.EINVAL)
	c.want(opWrite, file, append(append(u64s(fh, 0), u32s(1, 0, 0, 0, 0, 0)...), 'x'), vfs.EBADF)
	c.want(opFallocate, file, append(u64s(fh, 0, 10), u32s(0, 0)...), vfs.EBADF)
}

// TestBufferCost checks that requests are charged for the memory they take.
func TestBufferCost(t *testing.T) {
	for _, size := range []int{headerSize, smallMessage, smallMessage + 1, maxMessage} {
		b := newBuffer(size)
		if got := bufferCost(size); got != int64(len(b.data)) {
			t.Errorf("%d bytes are charged %d and take %d", size, got, len(b.data))
		}
		b.free()
	}
}

// TestOtherNameGone removes, behind the guest's back, the name by which a file with two names was known first.
func TestOtherNameGone(t *testing.T) {
	m := vfs.NewMemory(vfs.MemoryConfig{Shared: true})
	c, _ := start(t, Config{Mounts: []vfs.FS{m}})
	root := c.node(opLookup, rootID, text("0"))
	file, fh := c.makeFile(root, "a")
	c.want(opRelease, file, u64s(fh, 0, 0), 0)
	c.want(opLink, root, append(u64s(file), text("b")...), 0)
	if err := m.Unlink("a"); err != nil {
		t.Fatal(err)
	}
	// ESTALE, and not ENOENT, makes Linux look "b" up again.
	c.want(opOpen, file, u32s(0, 0), vfs.ESTALE)
	if again := c.node(opLookup, root, text("b")); again != file {
		t.Errorf("the same file is node %d and %d", file, again)
	}
	c.want(opOpen, file, u32s(0, 0), 0)
	c.want(opGetattr, file, u64s(0, 0), 0)
}
