package fsserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"net"
	"strings"
	"testing"
	"testing/fstest"

	"gondolin/internal/testenv"
	"gondolin/vfs"
)

// client is a guest that speaks the protocol by hand.
type client struct {
	t      *testing.T
	conn   net.Conn
	unique uint64
	served chan error
}

// message builds a request.
func message(op opcode, unique, nodeID uint64, body []byte) []byte {
	e := encoder{}
	e.u32(uint32(headerSize + len(body)))
	e.u32(uint32(op))
	e.u64(unique)
	e.u64(nodeID)
	e.b = append(e.b, make([]byte, 16)...)
	return append(e.b, body...)
}

// initBody is fuse_init_in of a current kernel.
func initBody() []byte {
	e := encoder{}
	e.u32(7)
	e.u32(44)
	e.u32(128 << 10)
	e.u32(0xffffffff)
	e.b = append(e.b, make([]byte, 48)...)
	return e.b
}

func dial(t *testing.T, s *Server) *client {
	t.Helper()
	guest, host := net.Pipe()
	c := &client{t: t, conn: guest, served: make(chan error, 1)}
	go func() { c.served <- s.Run(t.Context(), host) }()
	t.Cleanup(func() { guest.Close() })
	return c
}

// start is dial with INIT done.
func start(t *testing.T, cfg Config) (*client, *Server) {
	t.Helper()
	s := New(cfg)
	c := dial(t, s)
	if errno, body := c.call(opInit, 0, initBody()); errno != 0 || len(body) != initOutSize {
		t.Fatalf("INIT: errno %d, %d bytes", errno, len(body))
	}
	return c, s
}

func (c *client) send(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) call(op opcode, nodeID uint64, body []byte) (vfs.Errno, []byte) {
	c.t.Helper()
	c.unique++
	c.send(message(op, c.unique, nodeID, body))
	head := make([]byte, replyHeaderSize)
	if _, err := io.ReadFull(c.conn, head); err != nil {
		c.t.Fatal(err)
	}
	payload := make([]byte, binary.LittleEndian.Uint32(head)-replyHeaderSize)
	if _, err := io.ReadFull(c.conn, payload); err != nil {
		c.t.Fatal(err)
	}
	if unique := binary.LittleEndian.Uint64(head[8:]); unique != c.unique {
		c.t.Fatalf("reply to %d, want %d", unique, c.unique)
	}
	return vfs.Errno(-binary.LittleEndian.Uint32(head[4:])), payload
}

// node returns the id in a fuse_entry_out.
func (c *client) node(op opcode, parent uint64, body []byte) uint64 {
	c.t.Helper()
	errno, out := c.call(op, parent, body)
	if errno != 0 || len(out) < entryOutSize {
		c.t.Fatalf("opcode %d: errno %d, %d bytes", op, errno, len(out))
	}
	return binary.LittleEndian.Uint64(out)
}

func text(s string) []byte { return append([]byte(s), 0) }

func u64s(vs ...uint64) []byte {
	e := encoder{}
	for _, v := range vs {
		e.u64(v)
	}
	return e.b
}

func u32s(vs ...uint32) []byte {
	e := encoder{}
	for _, v := range vs {
		e.u32(v)
	}
	return e.b
}

// makeFile is CREATE; it returns node and handle.
func (c *client) makeFile(parent uint64, name string) (id, fh uint64) {
	c.t.Helper()
	errno, out := c.call(opCreate, parent, append(u32s(openRDWR, 0o100644, 0, 0), text(name)...))
	if errno != 0 {
		c.t.Fatalf("CREATE: %v", errno)
	}
	return binary.LittleEndian.Uint64(out), binary.LittleEndian.Uint64(out[entryOutSize:])
}

func (c *client) want(op opcode, nodeID uint64, body []byte, want vfs.Errno) {
	c.t.Helper()
	if errno, _ := c.call(op, nodeID, body); errno != want {
		c.t.Errorf("opcode %d: errno %d, want %d", op, errno, want)
	}
}

func TestFraming(t *testing.T) {
	long := message(opLookup, 1, 1, nil)
	binary.LittleEndian.PutUint32(long, maxMessage+1)
	short := message(opLookup, 1, 1, nil)
	binary.LittleEndian.PutUint32(short, 39)
	ext := message(opLookup, 1, 1, text("x"))
	ext[36] = 1
	old := initBody()
	old[4] = 20
	for name, tc := range map[string]struct {
		before, bad []byte
	}{
		"length beyond the bound": {message(opInit, 1, 0, initBody()), long},
		"length below the header": {message(opInit, 1, 0, initBody()), short},
		"extensions":              {message(opInit, 1, 0, initBody()), ext},
		"before INIT":             {nil, message(opLookup, 1, 1, text("0"))},
		"second INIT":             {message(opInit, 1, 0, initBody()), message(opInit, 2, 0, initBody())},
		"old protocol":            {nil, message(opInit, 1, 0, old)},
		"short INIT":              {nil, message(opInit, 1, 0, []byte{7})},
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, New(Config{Mounts: []vfs.FS{vfs.Memory()}}))
			go io.Copy(io.Discard, c.conn)
			c.send(append(tc.before, tc.bad...))
			if err := <-c.served; err == nil || !strings.HasPrefix(err.Error(), "cannot ") {
				t.Errorf("served with %v", err)
			}
		})
	}
}

func TestEndOfStream(t *testing.T) {
	c, _ := start(t, Config{})
	c.conn.Close()
	if err := <-c.served; err != nil {
		t.Errorf("the stream ended, and Run with %v", err)
	}
	s := New(Config{})
	c = dial(t, s)
	c.send([]byte{1, 2, 3})
	c.conn.Close()
	if err := <-c.served; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the stream ended inside a message, and Run with %v", err)
	}
	if err := s.Run(t.Context(), c.conn); err == nil {
		t.Error("a server ran twice")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, host := net.Pipe()
	if err := New(Config{}).Run(ctx, host); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestMalformed(t *testing.T) {
	c, _ := start(t, Config{Mounts: []vfs.FS{vfs.Memory()}})
	root := c.node(opLookup, rootID, text("0"))
	_, fh := c.makeFile(root, "f")
	for op := range handlers {
		switch op {
		case opForget, opBatchForget, opInterrupt, opNotifyReply, opDestroy, opIoctl, opOpendir, opStatfs, opReadlink, opFsyncdir:
			continue // no reply, or no body
		}
		c.want(op, root, nil, vfs.EINVAL)
		c.want(op, root, []byte{1, 2, 3}, vfs.EINVAL)
	}
	for _, name := range []string{"", ".", "..", "a/b"} {
		c.want(opLookup, root, text(name), vfs.EINVAL)
		c.want(opMkdir, root, append(u32s(0o755, 0), text(name)...), vfs.EINVAL)
	}
	c.want(opLookup, root, text(strings.Repeat("n", 256)), vfs.ENAMETOOLONG)
	c.want(opLookup, 9999, text("x"), vfs.ESTALE)
	c.want(opRead, root, append(u64s(999, 0), u32s(4096, 0, 0, 0, 0, 0)...), vfs.EBADF)
	c.want(opRead, root, append(u64s(fh, 0), u32s(maxWrite+1, 0, 0, 0, 0, 0)...), vfs.EINVAL)
	c.want(opRead, root, append(u64s(fh, 1<<63), u32s(1, 0, 0, 0, 0, 0)...), vfs.EFBIG)
	c.want(opWrite, root, append(append(u64s(fh, 0), u32s(5, 0, 0, 0, 0, 0)...), "four"...), vfs.EINVAL)
	c.want(opReaddir, root, append(u64s(fh, 0), u32s(4096, 0, 0, 0, 0, 0)...), vfs.EBADF)
	c.want(opcode(4096), root, nil, vfs.ENOSYS)
	c.want(opRelease, root, u64s(fh, 0, 0), 0)
	c.want(opRelease, root, u64s(fh, 0, 0), vfs.EBADF)
}

func TestLimits(t *testing.T) {
	testenv.CheckLeaks(t)
	c, s := start(t, Config{Mounts: []vfs.FS{vfs.Memory()}, Limits: Limits{Nodes: 3, Handles: 2, DirEntries: 4}})
	root := c.node(opLookup, rootID, text("0"))
	_, first := c.makeFile(root, "a")
	c.makeFile(root, "b")
	c.want(opCreate, root, append(u32s(openRDWR, 0o100644, 0, 0), text("c")...), vfs.ENFILE)
	c.want(opOpendir, root, u64s(0), vfs.ENFILE)
	c.want(opRelease, root, u64s(first, 0, 0), 0)
	c.want(opMkdir, root, append(u32s(0o755, 0), text("d")...), 0)
	c.want(opMkdir, root, append(u32s(0o755, 0), text("e")...), vfs.ENOMEM)
	c.want(opLookup, root, text("e"), vfs.ENOMEM)
	c.want(opMkdir, root, append(u32s(0o755, 0), text("x")...), vfs.ENOMEM)
	errno, out := c.call(opOpendir, root, u64s(0))
	if errno != 0 {
		t.Fatal(errno)
	}
	dir := binary.LittleEndian.Uint64(out)
	c.want(opReaddir, root, append(u64s(dir, 0), u32s(4096, 0, 0, 0, 0, 0)...), vfs.ENOMEM)
	// Forgetting makes room again.
	d := c.node(opLookup, root, text("d"))
	c.send(message(opForget, 0, d, u64s(1000)))
	c.waitForgotten(d)
	if id := c.node(opLookup, root, text("e")); id == d {
		t.Errorf("node id %d was used twice", id)
	}
	c.conn.Close()
	<-c.served
	if len(s.handles.open) != 0 || s.handles.count != 0 || s.handles.names != 0 {
		t.Errorf("left open: %d handles, count %d, %d names", len(s.handles.open), s.handles.count, s.handles.names)
	}
}

// tableSize is what a table holds.
type tableSize struct{ alive, nodes, keys, names int }

func inTable(s *Server) tableSize {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	return tableSize{s.table.alive, len(s.table.nodes), len(s.table.keys), s.table.names}
}

func handleCount(s *Server) int {
	s.handles.mu.Lock()
	defer s.handles.mu.Unlock()
	return s.handles.count
}

// waitForgotten asks until a FORGET, which has no reply, was served.
func (c *client) waitForgotten(id uint64) {
	c.t.Helper()
	for range 10000 {
		if errno, _ := c.call(opGetattr, id, u64s(0, 0)); errno == vfs.ESTALE {
			return
		}
	}
	c.t.Fatalf("node %d is not forgotten", id)
}

// TestForgetAll checks that a table that was filled and forgotten is empty.
func TestForgetAll(t *testing.T) {
	c, s := start(t, Config{Mounts: []vfs.FS{vfs.Memory()}})
	root := c.node(opLookup, rootID, text("0"))
	before := inTable(s)
	var ids []uint64
	parent := root
	for range 20 { // a chain
		parent = c.node(opMkdir, parent, append(u32s(0o755, 0), text("d")...))
		ids = append(ids, parent)
	}
	_, out := c.call(opLookup, root, text("d"))
	if got := binary.LittleEndian.Uint64(out); got != ids[0] {
		t.Errorf("the same directory is node %d and %d", ids[0], got)
	}
	batch := u32s(uint32(len(ids)), 0)
	for _, id := range ids { // parents first: their names must stay usable until the children are gone
		batch = append(batch, u64s(id, 2)...)
	}
	c.send(message(opBatchForget, 0, 0, batch[:8+16*19]))
	c.waitForgotten(ids[18])
	c.want(opGetattr, ids[19], u64s(0, 0), 0)
	c.send(message(opForget, 0, ids[19], u64s(1)))
	c.waitForgotten(ids[19])
	if after := inTable(s); after != before {
		t.Errorf("%+v, and before %+v", after, before)
	}
}

// panicFS panics in every call but those that find the file.
type panicFS struct{ vfs.FS }

func (panicFS) Mkdir(string, vfs.Create) error { panic("mkdir") }

func (panicFS) ReadDir(string) iter.Seq2[vfs.DirEntry, error] { panic("readdir") }

func (p panicFS) Open(string, vfs.OpenFlag, vfs.Create) (vfs.File, error) { panic("open") }

func TestPanic(t *testing.T) {
	testenv.CheckLeaks(t)
	c, s := start(t, Config{Mounts: []vfs.FS{panicFS{vfs.Memory()}}})
	root := c.node(opLookup, rootID, text("0"))
	for range 3 {
		c.want(opMkdir, root, append(u32s(0o755, 0), text("d")...), vfs.EIO)
		c.want(opCreate, root, append(u32s(openRDWR, 0o644, 0, 0), text("d")...), vfs.EIO)
	}
	_, out := c.call(opOpendir, root, u64s(0))
	c.want(opReaddir, root, append(u64s(binary.LittleEndian.Uint64(out), 0), u32s(4096, 0, 0, 0, 0, 0)...), vfs.EIO)
	c.want(opRename, root, append(u64s(root), append(text("a"), text("b")...)...), vfs.ENOENT) // no lock was left behind
	if n := handleCount(s); n != 1 {
		t.Errorf("%d handles counted", n)
	}
}

// TestLongNames checks a READDIR reply of names of 255 bytes against the size that the guest gave.
func TestLongNames(t *testing.T) {
	m := vfs.Memory()
	for i := range 100 {
		if err := m.Mkdir(strings.Repeat(string(rune('!'+i)), 250/len(string(rune('!'+i)))), vfs.Create{}); err != nil && i != 14 {
			t.Fatal(i, err)
		}
	}
	c, _ := start(t, Config{Mounts: []vfs.FS{m}})
	root := c.node(opLookup, rootID, text("0"))
	_, out := c.call(opOpendir, root, u64s(0))
	fh := binary.LittleEndian.Uint64(out)
	for _, op := range []opcode{opReaddir, opReaddirplus} {
		names, offset := 0, uint64(0)
		for {
			errno, out := c.call(op, root, append(u64s(fh, offset), u32s(1000, 0, 0, 0, 0, 0)...))
			if errno != 0 || len(out) > 1000 {
				t.Fatalf("errno %d, %d bytes", errno, len(out))
			}
			if len(out) == 0 {
				break
			}
			for len(out) > 0 {
				if op == opReaddirplus {
					out = out[entryOutSize:]
				}
				offset = binary.LittleEndian.Uint64(out[8:])
				size := binary.LittleEndian.Uint32(out[16:])
				out = out[(direntSize+size+7)&^7:]
				names++
			}
		}
		if names != 101 {
			t.Errorf("opcode %d lists %d names, want 101", op, names)
		}
	}
}

// FuzzServer sends arbitrary bytes after INIT.
func FuzzServer(f *testing.F) {
	f.Add([]byte{})
	f.Add(message(opLookup, 1, rootID, text("0")))
	f.Add(bytes.Join([][]byte{
		message(opLookup, 1, rootID, text("0")),
		message(opCreate, 2, 2, append(u32s(openRDWR, 0o100644, 0, 0), text("f")...)),
		message(opWrite, 3, 3, append(append(u64s(1, 0), u32s(4, 0, 0, 0, 0, 0)...), "data"...)),
		message(opRead, 4, 3, append(u64s(1, 0), u32s(4096, 0, 0, 0, 0, 0)...)),
		message(opRename2, 5, 2, append(append(u64s(2), u32s(1, 0)...), append(text("f"), text("g")...)...)),
		message(opForget, 6, 3, u64s(1)),
		message(opRelease, 7, 3, u64s(1, 0, 0)),
	}, nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := New(Config{
			Mounts: []vfs.FS{vfs.NewMemory(vfs.MemoryConfig{MaxBytes: 1 << 20, MaxInodes: 64}), vfs.FromFS(fstest.MapFS{"f": {Data: []byte("x")}})},
			Limits: Limits{Nodes: 64, Handles: 16, DirEntries: 64},
		})
		c := dial(t, s)
		done := make(chan struct{})
		go drain(t, c.conn, done)
		c.conn.Write(message(opInit, 1, 0, initBody()))
		c.conn.Write(data)
		c.conn.Close()
		err := <-c.served
		<-done
		if err != nil && !strings.HasPrefix(err.Error(), "cannot ") {
			t.Errorf("ended with %v", err)
		}
		if s.panics.Load() != 0 {
			t.Error("a handler panicked")
		}
		if s.handles.count != 0 || s.table.alive > s.table.limit || s.table.alive < len(s.table.nodes) {
			t.Errorf("%d handles, %d nodes alive, %d in the table", s.handles.count, s.table.alive, len(s.table.nodes))
		}
	})
}

// drain reads replies and checks their framing.
func drain(t *testing.T, conn io.Reader, done chan struct{}) {
	defer close(done)
	var head [replyHeaderSize]byte
	for {
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return // the end, or the client has closed its end within a reply
		}
		size := binary.LittleEndian.Uint32(head[:])
		errno := -binary.LittleEndian.Uint32(head[4:])
		if size < replyHeaderSize || size > maxMessage || errno >= 512 || errno != 0 && size != replyHeaderSize {
			t.Errorf("a reply of %d bytes with errno %d", size, errno)
			return
		}
		if _, err := io.CopyN(io.Discard, conn, int64(size)-replyHeaderSize); err != nil {
			return
		}
	}
}

// FuzzHeader checks the invariants that readAll relies on.
func FuzzHeader(f *testing.F) {
	f.Add(message(opLookup, 1, 1, nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := parseHeader(data)
		if err == nil && (h.length < headerSize || h.length > maxMessage) {
			t.Errorf("accepted length %d", h.length)
		}
		if _, err := negotiate(data); err != nil && !strings.HasPrefix(err.Error(), "cannot ") {
			t.Errorf("error %v", err)
		}
		parseSetattr(&decoder{b: data})
	})
}
