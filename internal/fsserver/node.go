package fsserver

import (
	"maps"
	"slices"
	"sync"

	"gondolin/vfs"
)

// mount is one vfs.FS of the server.
type mount struct {
	index int
	fs    vfs.FS
	cache vfs.Cache
	// lists has one slot for each listing of a directory that may be under way.
	lists chan struct{}

	// tree keeps paths stable: shared during operations, exclusive during renames. It is taken before table.mu.
	tree sync.RWMutex
}

// identity names a file of a mount across its hard links.
type identity struct {
	mount    int
	dev, ino uint64
}

// link is one name of a node.
type link struct {
	parent *node
	name   string
}

// node is what the guest's kernel knows by a number. Fields after mount are guarded by table.mu.
type node struct {
	id    uint64
	mount *mount // nil for node 1
	kind  vfs.Mode
	key   identity // ino 0: none

	lookups  uint64 // references of the guest's kernel
	links    []link // names known now; none after unlink
	children map[string]*node
	// mostChildren is how many names children has had room for since it was made.
	mostChildren int
	open         []*handle
	freed        bool // no longer counted
}

// table holds all nodes. Node ids are never used twice.
type table struct {
	limit int

	mu    sync.Mutex // taken after mount.tree; held for bookkeeping only, never during calls of a provider
	nodes map[uint64]*node
	keys  map[identity]*node
	// alive counts nodes in memory: those in nodes, and forgotten ones that still are part of another's path.
	alive int
	// names counts the links of all nodes: a file may have very many.
	names  int
	lastID uint64
}

func newTable(mounts []*mount, limit int) *table {
	t := &table{limit: limit + len(mounts) + 1, nodes: map[uint64]*node{}, keys: map[identity]*node{}}
	root := t.add(nil, vfs.ModeDir)
	root.lookups = 1
	for _, m := range mounts {
		t.add(m, vfs.ModeDir).lookups = 1 // never given back: forget leaves mount roots alone
	}
	return t
}

// add makes a node without links. t.mu is held, or nobody else has t.
func (t *table) add(m *mount, kind vfs.Mode) *node {
	t.lastID++
	t.alive++
	n := &node{id: t.lastID, mount: m, kind: kind}
	t.nodes[n.id] = n
	return n
}

// get returns the node with an id from the guest.
func (t *table) get(id uint64) (*node, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.nodes[id]
	if !ok {
		return nil, vfs.ESTALE
	}
	return n, nil
}

// isMountRoot reports whether n is the root of its mount; these ids follow node 1.
func (n *node) isMountRoot() bool { return n.mount != nil && n.id == mountID(n.mount.index) }

func mountID(index int) uint64 { return rootID + 1 + uint64(index) } //nolint:gosec // G115: an index.

// path returns the path of n within its mount. ESTALE: it has no name any more.
func (t *table) path(n *node) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.pathLocked()
}

func (n *node) pathLocked() (string, error) {
	var names []string
	size := 0
	for ; !n.isMountRoot(); n = n.links[0].parent {
		if len(n.links) == 0 {
			return "", vfs.ESTALE
		}
		name := n.links[0].name
		names = append(names, name)
		// The bound also ends loops, which a host that moves directories around can leave in stale links.
		if size += len(name) + 1; size > vfs.MaxPath {
			return "", vfs.ENAMETOOLONG
		}
	}
	if len(names) == 0 {
		return ".", nil
	}
	buf := make([]byte, 0, size)
	for i, name := range slices.Backward(names) {
		buf = append(buf, name...)
		if i > 0 {
			buf = append(buf, '/')
		}
	}
	return string(buf), nil
}

// enter records that the guest's kernel is told about a name, and returns its node with one more reference.
func (t *table) enter(parent *node, name string, a *vfs.Attr) (*node, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if parent.freed {
		return nil, vfs.ESTALE // forgotten while the provider was asked
	}
	n := t.find(parent, name, a)
	if t.names >= t.limit && (n == nil || parent.children[name] != n) {
		return nil, vfs.ENOMEM
	}
	if n == nil {
		if t.alive >= t.limit {
			return nil, vfs.ENOMEM
		}
		n = t.add(parent.mount, a.Mode.Type())
		if a.Ino != 0 {
			n.key = identity{parent.mount.index, a.Dev, a.Ino}
			t.keys[n.key] = n
		}
	}
	n.lookups++
	t.nodes[n.id] = n // again, if it was forgotten while a child or an open file kept it
	if parent.children[name] == n {
		n.prefer(link{parent, name})
		return n, nil
	}
	before := t.detach(parent, name)
	if a.Mode.IsDir() || a.Nlink <= 1 { // the host moved it
		for _, l := range slices.Clone(n.links) {
			t.detach(l.parent, l.name)
			defer t.settle(l.parent) //nolint:revive // a few links; their parents settle when the node has its new name
		}
	}
	t.name(parent, name, n)
	t.settle(before)
	return n, nil
}

// prefer makes a name that is there the one that path uses: the host may have removed others. t.mu is held.
func (n *node) prefer(l link) {
	if i := slices.Index(n.links, l); i > 0 {
		n.links[0], n.links[i] = n.links[i], n.links[0]
	}
}

// find returns the node that a name with these attributes already has, or nil. t.mu is held.
func (t *table) find(parent *node, name string, a *vfs.Attr) *node {
	if a.Ino == 0 {
		n := parent.children[name]
		if n != nil && (n.key.ino != 0 || n.kind != a.Mode.Type()) {
			return nil
		}
		return n
	}
	key := identity{parent.mount.index, a.Dev, a.Ino}
	n := t.keys[key]
	if n != nil && n.kind != a.Mode.Type() { // the host uses the number for another file now
		delete(t.keys, key)
		return nil
	}
	return n
}

// name gives n a name that is free. t.mu is held.
func (t *table) name(parent *node, name string, n *node) {
	if parent.children == nil {
		parent.children = map[string]*node{}
	}
	parent.children[name] = n
	n.links = append(n.links, link{parent, name})
	t.names++
}

// detach takes a name away from whatever has it. t.mu is held; the caller settles.
func (t *table) detach(parent *node, name string) *node {
	n := parent.children[name]
	if n == nil {
		return nil
	}
	t.dropChild(parent, name)
	n.links = slices.DeleteFunc(n.links, func(l link) bool { return l.parent == parent && l.name == name })
	if cap(n.links) > 2*minShrink && len(n.links) < cap(n.links)/4 {
		n.links = slices.Clone(n.links) // what a guest once filled must not stay allocated
	}
	return n
}

// dropChild takes a name out of a directory, and the memory of many names with it: Go's maps never shrink. t.mu is held.
func (t *table) dropChild(parent *node, name string) {
	parent.mostChildren = max(parent.mostChildren, len(parent.children))
	delete(parent.children, name)
	t.names--
	if parent.mostChildren < minShrink || len(parent.children) > parent.mostChildren/4 {
		return
	}
	smaller := make(map[string]*node, len(parent.children))
	maps.Copy(smaller, parent.children)
	parent.children, parent.mostChildren = smaller, len(smaller)
}

// settle drops what n no longer needs after a change: its identity when nothing can lead to the file any more (the
// host may give the number to another), and n itself with all parents that only it kept. t.mu is held.
func (t *table) settle(n *node) {
	for n != nil && n.mount != nil && !n.isMountRoot() && !n.freed {
		inUse := n.lookups > 0 || len(n.children) > 0 || len(n.open) > 0
		if t.keys[n.key] == n && (!inUse || len(n.links) == 0 && len(n.open) == 0) {
			delete(t.keys, n.key)
		}
		if inUse {
			return
		}
		n.freed = true
		t.alive--
		links := n.links
		n.links = nil
		n = nil
		for _, l := range links { // directories have one, so the recursion is at most two deep
			t.dropChild(l.parent, l.name)
			t.settle(n)
			n = l.parent
		}
	}
}

// removed records that a name is gone.
func (t *table) removed(parent *node, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.detach(parent, name)
	t.settle(parent)
	t.settle(n)
}

// renamed records a rename. The mount's tree lock is held alone.
func (t *table) renamed(from, to link, flags vfs.RenameFlag) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if src := from.parent.children[from.name]; src != nil && src == to.parent.children[to.name] {
		return // one name, or two names of one file: rename(2) does nothing
	}
	src := t.detach(from.parent, from.name)
	dst := t.detach(to.parent, to.name)
	if src != nil {
		t.name(to.parent, to.name, src)
	}
	if dst != nil && flags&vfs.RenameExchange != 0 {
		t.name(from.parent, from.name, dst)
	}
	for _, n := range []*node{src, dst, from.parent, to.parent} {
		t.settle(n)
	}
}

// forget takes back references; more than there are is the guest's mistake and counts as all.
func (t *table) forget(id, count uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nodes[id]
	if n == nil || n.mount == nil || n.isMountRoot() {
		return
	}
	n.lookups -= min(count, n.lookups)
	if n.lookups == 0 {
		delete(t.nodes, id)
		t.settle(n)
	}
}
