package fsserver

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"gondolin/vfs"
)

// A guest that was copied goes on with the node numbers and handles its kernel
// holds, and sends no INIT again: what a Server knows of them has to come along. Whatever
// is added to Server, table, node, handles or handle that a guest's kernel relies on
// belongs into state too, with another stateVersion. Buffers, semaphores and requests
// under way do not: there are none when a guest is at rest.

// stateVersion is the version of state; any other is refused.
const stateVersion = 1

// maxStateBytes bounds an encoded state: as many nodes as there may be, with long names.
const maxStateBytes = 1 << 30

// opRest is the request of the guest's pump, not of its kernel, that is answered
// when all before it have been (package fusepump).
const opRest opcode = 0x676f6e64

type state struct {
	Version    int           `cbor:"1,keyasint"`
	Settings   *Settings     `cbor:"2,keyasint"` // nil before INIT
	Mounts     int           `cbor:"3,keyasint"`
	LastNode   uint64        `cbor:"4,keyasint"`
	LastHandle uint64        `cbor:"5,keyasint"`
	Nodes      []nodeState   `cbor:"6,keyasint"` // but the root and those of mounts
	Handles    []handleState `cbor:"7,keyasint"`
}

type nodeState struct {
	_       struct{} `cbor:",toarray"`
	ID      uint64
	Mount   int
	Kind    uint32
	Dev     uint64
	Ino     uint64
	Keyed   bool // found by its identity
	Known   bool // found by its number: the guest's kernel has not forgotten it
	Lookups uint64
	Links   []linkState
}

type linkState struct {
	_      struct{} `cbor:",toarray"`
	Parent uint64
	Name   string
}

type handleState struct {
	_       struct{} `cbor:",toarray"`
	ID      uint64
	Node    uint64
	Dir     bool
	Write   bool
	Listing []entryState
}

type entryState struct {
	_        struct{} `cbor:",toarray"`
	Name     string
	Type     uint32
	Dev, Ino uint64
}

// Save returns what Resume needs to serve a copy of the guest, which must be at
// rest: a request under way may or may not be part of it. Nameless is how many files
// are open that have no name any more; no copy can open them.
func (s *Server) Save() (encoded []byte, nameless int, err error) {
	s.handles.mu.Lock()
	defer s.handles.mu.Unlock()
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	st := state{
		Version: stateVersion, Settings: s.settings.Load(), Mounts: len(s.mounts),
		LastNode: s.table.lastID, LastHandle: s.handles.lastID,
	}
	nodes := maps.Clone(s.table.nodes)
	for _, id := range slices.Sorted(maps.Keys(s.handles.open)) {
		h := s.handles.open[id]
		addWithParents(nodes, h.node)
		if h.file != nil && len(h.node.links) == 0 {
			nameless++
		}
		st.Handles = append(st.Handles, h.state())
	}
	for _, n := range s.table.nodes {
		addWithParents(nodes, n)
	}
	for _, id := range slices.Sorted(maps.Keys(nodes)) {
		if n := nodes[id]; n.mount != nil && !n.isMountRoot() {
			st.Nodes = append(st.Nodes, s.table.state(n))
		}
	}
	encoded, err = cbor.Marshal(st)
	if err == nil && len(encoded) > maxStateBytes {
		err = fmt.Errorf("%d MiB exceed %d", len(encoded)>>20, maxStateBytes>>20)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("cannot save the state of the files: %w", err)
	}
	return encoded, nameless, nil
}

// addWithParents adds n and all that its paths lead through. table.mu is held.
func addWithParents(nodes map[uint64]*node, n *node) {
	for _, l := range n.links {
		if nodes[l.parent.id] == nil {
			nodes[l.parent.id] = l.parent
			addWithParents(nodes, l.parent)
		}
	}
	nodes[n.id] = n
}

func (t *table) state(n *node) nodeState {
	st := nodeState{
		ID: n.id, Mount: n.mount.index, Kind: uint32(n.kind), Dev: n.key.dev, Ino: n.key.ino,
		Keyed: n.key.ino != 0 && t.keys[n.key] == n, Known: t.nodes[n.id] == n, Lookups: n.lookups,
	}
	for _, l := range n.links {
		st.Links = append(st.Links, linkState{Parent: l.parent.id, Name: l.name})
	}
	return st
}

// state reads the listing without its lock, which is held only during requests.
func (h *handle) state() handleState {
	st := handleState{ID: h.id, Node: h.node.id, Dir: h.file == nil, Write: h.write}
	for _, e := range h.listing {
		st.Listing = append(st.Listing, entryState{Name: e.Name, Type: uint32(e.Type), Dev: e.Dev, Ino: e.Ino})
	}
	return st
}

// Resume returns a server for a copy of a guest, from what Save returned. cfg's mounts
// stand for those the guest had, one by one. Files that are open are opened
// anew; one that is not there any more, or is another, is ESTALE to the guest.
func Resume(cfg Config, encoded []byte) (*Server, error) {
	st, err := decodeState(encoded)
	if err != nil {
		return nil, fmt.Errorf("cannot use the state of the files: %w", err)
	}
	s := New(cfg)
	if st.Mounts != len(s.mounts) {
		return nil, fmt.Errorf("cannot use the state of the files: it has %d mounts, not %d", st.Mounts, len(s.mounts))
	}
	if st.Settings != nil {
		s.settings.Store(st.Settings)
	}
	if err := s.resumeNodes(st); err != nil {
		return nil, fmt.Errorf("cannot use the state of the files: %w", err)
	}
	if err := s.resumeHandles(st); err != nil {
		s.closeAll()
		return nil, fmt.Errorf("cannot use the state of the files: %w", err)
	}
	return s, nil
}

func decodeState(encoded []byte) (*state, error) {
	if len(encoded) > maxStateBytes {
		return nil, errors.New("it is too large")
	}
	mode, err := cbor.DecOptions{
		MaxArrayElements: 1 << 24, MaxNestedLevels: 8, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
	}.DecMode()
	if err != nil {
		return nil, err
	}
	st := new(state)
	if err := mode.Unmarshal(encoded, st); err != nil {
		return nil, err
	}
	if st.Version != stateVersion {
		return nil, fmt.Errorf("it has version %d, this program %d", st.Version, stateVersion)
	}
	return st, nil
}

// resumeNodes fills the table. Nobody else has s yet.
func (s *Server) resumeNodes(st *state) error {
	t := s.table
	if len(st.Nodes)+len(t.nodes) > t.limit {
		return fmt.Errorf("%d nodes exceed %d", len(st.Nodes), t.limit)
	}
	all := maps.Clone(t.nodes)
	for _, ns := range st.Nodes {
		if all[ns.ID] != nil || ns.ID > st.LastNode || ns.Mount < 0 || ns.Mount >= len(s.mounts) {
			return fmt.Errorf("node %d cannot be", ns.ID)
		}
		n := &node{id: ns.ID, mount: s.mounts[ns.Mount], kind: vfs.Mode(ns.Kind).Type(), lookups: ns.Lookups}
		if ns.Ino != 0 {
			n.key = identity{ns.Mount, ns.Dev, ns.Ino}
		}
		all[n.id] = n
		t.alive++
		if ns.Known {
			t.nodes[n.id] = n
		}
		if ns.Keyed {
			t.keys[n.key] = n
		}
	}
	t.lastID = max(t.lastID, st.LastNode)
	for _, ns := range st.Nodes {
		for _, l := range ns.Links {
			parent := all[l.Parent]
			if parent == nil || parent.mount != all[ns.ID].mount || !parent.kind.IsDir() ||
				vfs.CheckName(l.Name) != nil || parent.children[l.Name] != nil || t.names >= t.limit {
				return fmt.Errorf("a name of node %d cannot be", ns.ID)
			}
			t.name(parent, l.Name, all[ns.ID])
		}
	}
	return s.claimNodes(st, all)
}

// claimNodes checks that each handle has its node, which is then found by handle.
func (s *Server) claimNodes(st *state, all map[uint64]*node) error {
	hs := s.handles
	if len(st.Handles) > hs.limit {
		return fmt.Errorf("%d open files exceed %d", len(st.Handles), hs.limit)
	}
	for _, h := range st.Handles {
		n := all[h.Node]
		if n == nil || hs.open[h.ID] != nil || h.ID > st.LastHandle || h.Dir != n.kind.IsDir() {
			return fmt.Errorf("open file %d cannot be", h.ID)
		}
		hs.open[h.ID] = &handle{id: h.ID, node: n, write: h.Write, refs: 1}
		n.open = append(n.open, hs.open[h.ID])
		hs.count++
	}
	hs.lastID = max(hs.lastID, st.LastHandle)
	return nil
}

// resumeHandles opens what was open.
func (s *Server) resumeHandles(st *state) error {
	for _, hs := range st.Handles {
		h := s.handles.open[hs.ID]
		if !hs.Dir {
			h.file = s.reopen(h)
			continue
		}
		if err := s.handles.countNames(len(hs.Listing)); err != nil {
			return errors.New("the listings of its directories are too long")
		}
		for _, e := range hs.Listing {
			if vfs.CheckName(e.Name) != nil {
				return fmt.Errorf("a listing of node %d cannot be", hs.Node)
			}
			h.listing = append(h.listing, vfs.DirEntry{Name: e.Name, Type: vfs.Mode(e.Type).Type(), Dev: e.Dev, Ino: e.Ino})
		}
	}
	return nil
}

func (s *Server) reopen(h *handle) (f vfs.File) {
	defer func() {
		if v := recover(); v != nil {
			s.logPanic(opOpen, v)
			f = stale{}
		}
	}()
	var how vfs.OpenFlag
	if h.write {
		how = vfs.Write
	}
	f, err := s.openNode(h.node, how)
	if err != nil {
		s.log.Debug("cannot open a file of the checkpoint again", "error", err)
		return stale{}
	}
	return f
}

// stale is an open file that is not there any more.
type stale struct{}

var _ vfs.File = stale{}

// ReadAt and all other methods fail with ESTALE.
func (stale) ReadAt([]byte, int64) (int, error) { return 0, vfs.ESTALE }

// WriteAt implements vfs.File.
func (stale) WriteAt([]byte, int64) (int, error) { return 0, vfs.ESTALE }

// Stat implements vfs.File.
func (stale) Stat() (vfs.Attr, error) { return vfs.Attr{}, vfs.ESTALE }

// SetAttr implements vfs.File.
func (stale) SetAttr(vfs.SetAttr) error { return vfs.ESTALE }

// Sync implements vfs.File.
func (stale) Sync() error { return vfs.ESTALE }

// Close implements vfs.File.
func (stale) Close() error { return nil }

// answerRest answers the guest's pump when all its requests have been answered. Only
// readAll calls it, so none is added meanwhile.
func (s *Server) answerRest(h header) error {
	if h.length != headerSize {
		return fmt.Errorf("cannot accept a request for rest of %d bytes", h.length)
	}
	s.workers.Wait()
	req := &request{header: h}
	req.start(0)
	defer req.outBuf.free()
	s.reply(req, 0)
	return nil
}
