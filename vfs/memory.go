package vfs

import (
	"iter"
	"strings"
	"sync"
	"time"
)

// MemoryConfig bounds a memory file system.
type MemoryConfig struct {
	// MaxBytes is the most that content and names may take, in bytes. If zero, 1 GiB. Beyond it the guest sees ENOSPC.
	MaxBytes int64
	// MaxInodes is the most files, directories and links at a time. If zero, 262144. Beyond it the guest sees ENOSPC.
	MaxInodes int64
	// Shared makes the guest ask again every second, as for a host directory. It is needed if the tree is mounted in
	// several guests or changed by the host program while a guest runs: without it the guest trusts its caches.
	Shared bool
}

// MemoryFS is a complete POSIX tree in host memory: hard links, symbolic links, FIFOs and sockets, owners, modes and
// times, extended attributes, sparse files. Access times change only when set. It keeps everything until it is garbage.
type MemoryFS struct {
	cfg MemoryConfig

	// mu guards everything below, including all nodes of the tree and their content.
	mu     sync.RWMutex
	root   *memoryNode
	bytes  int64 // charged against MaxBytes
	inodes int64 // charged against MaxInodes
	serial uint64
}

var (
	_ FS         = (*MemoryFS)(nil)
	_ Linker     = (*MemoryFS)(nil)
	_ Symlinker  = (*MemoryFS)(nil)
	_ Readlinker = (*MemoryFS)(nil)
	_ StatFSer   = (*MemoryFS)(nil)
	_ Cacher     = (*MemoryFS)(nil)
	_ Mknoder    = (*MemoryFS)(nil)
	_ TmpFiler   = (*MemoryFS)(nil)
	_ XattrFS    = (*MemoryFS)(nil)
	_ DirStater  = (*MemoryFS)(nil)
)

// Memory returns an empty memory file system with the default quotas, for one guest. Its root belongs to the guest's root with mode 0755.
func Memory() FS { return NewMemory(MemoryConfig{}) }

// NewMemory returns an empty memory file system.
func NewMemory(cfg MemoryConfig) *MemoryFS {
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = memoryDefaultBytes
	}
	if cfg.MaxInodes <= 0 {
		cfg.MaxInodes = memoryDefaultInodes
	}
	m := &MemoryFS{cfg: cfg}
	m.root = m.newNode(ModeDir|0o755, Create{})
	m.root.parent = m.root
	m.root.nlink = 2
	return m
}

// memoryNode is an inode. Its fields are guarded by MemoryFS.mu.
type memoryNode struct {
	ino      uint64
	mode     Mode
	nlink    uint32
	uid, gid uint32
	atime    time.Time
	mtime    time.Time
	ctime    time.Time
	open     int // handles; the content lives until nlink and open are 0

	children map[string]*memoryNode // directories
	most     int                    // directories: how many children the map has had room for
	parent   *memoryNode            // directories; the root is its own
	target   string                 // symbolic links
	data     memoryData             // regular files
	xattrs   map[string]string
	nameless bool // made by TmpFile and not linked yet
}

func (m *MemoryFS) newNode(mode Mode, create Create) *memoryNode {
	m.serial++
	m.inodes++
	now := time.Now()
	n := &memoryNode{
		ino: m.serial, mode: mode, nlink: 1, uid: create.UID, gid: create.GID,
		atime: now, mtime: now, ctime: now,
	}
	if mode.IsDir() {
		n.children = map[string]*memoryNode{}
		n.nlink = 2
	}
	return n
}

// Cache implements Cacher: nobody but the guest changes the tree, unless MemoryConfig says so.
func (m *MemoryFS) Cache() Cache {
	if m.cfg.Shared {
		return SharedCache()
	}
	return ExclusiveCache()
}

// StatFS implements StatFSer with the quotas.
func (m *MemoryFS) StatFS() (StatFS, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	free := uint64(max(0, m.cfg.MaxBytes-m.bytes)) / memoryPage
	freeFiles := uint64(max(0, m.cfg.MaxInodes-m.inodes))
	return StatFS{
		BlockSize: memoryPage, Blocks: uint64(m.cfg.MaxBytes) / memoryPage, Free: free, Avail: free, //nolint:gosec // positive
		Files: uint64(m.cfg.MaxInodes), FreeFiles: freeFiles, //nolint:gosec // positive
	}, nil
}

// Lstat implements FS.
func (m *MemoryFS) Lstat(name string) (Attr, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.walk(name)
	if err != nil {
		return Attr{}, err
	}
	return n.attr(), nil
}

func (n *memoryNode) attr() Attr {
	a := Attr{
		Mode: n.mode, Nlink: n.nlink, UID: n.uid, GID: n.gid, Dev: 1, Ino: n.ino,
		Atime: n.atime, Mtime: n.mtime, Ctime: n.ctime,
	}
	switch n.mode.Type() {
	case ModeDir:
		a.Size = memoryPage
	case ModeSymlink:
		a.Size = int64(len(n.target))
	default:
		a.Size = n.data.size
		a.Blocks = n.data.bytes() / 512
	}
	return a
}

// walk returns the node of a path. m.mu is held.
func (m *MemoryFS) walk(name string) (*memoryNode, error) {
	if err := CheckPath(name); err != nil {
		return nil, err
	}
	n := m.root
	if name == "." {
		return n, nil
	}
	for elem := range strings.SplitSeq(name, "/") {
		if err := n.searchable(); err != nil {
			return nil, err
		}
		next, ok := n.children[elem]
		if !ok {
			return nil, ENOENT
		}
		n = next
	}
	return n, nil
}

// searchable returns nil for a directory: links inside a path are the guest's to resolve.
func (n *memoryNode) searchable() error {
	switch {
	case n.mode.IsDir():
		return nil
	case n.mode.IsSymlink():
		return ELOOP
	}
	return ENOTDIR
}

// entry returns the parent directory of a path, its last element, and the node there or nil. The root has no
// parent: it is EBUSY. m.mu is held.
func (m *MemoryFS) entry(name string) (dir *memoryNode, slot memorySlot, err error) {
	if err := CheckPath(name); err != nil {
		return nil, memorySlot{}, err
	}
	if name == "." {
		return nil, memorySlot{}, EBUSY
	}
	parent, base := splitPath(name)
	if dir, err = m.walk(parent); err != nil {
		return nil, memorySlot{}, err
	}
	if err := dir.searchable(); err != nil {
		return nil, memorySlot{}, err
	}
	return dir, memorySlot{name: base, node: dir.children[base]}, nil
}

// memorySlot is a name in a directory; node is nil if the name is free.
type memorySlot struct {
	name string
	node *memoryNode
}

// charge takes bytes from the quota, or fails. m.mu is held for writing.
func (m *MemoryFS) charge(bytes int64) error {
	if bytes > m.cfg.MaxBytes-m.bytes {
		return ENOSPC
	}
	m.bytes += bytes
	return nil
}

// attach enters a node under a free name. m.mu is held for writing, the entry's cost is charged.
func (m *MemoryFS) attach(dir *memoryNode, name string, n *memoryNode) {
	dir.children[strings.Clone(name)] = n // name is a part of a path, and would keep all of it
	if n.mode.IsDir() {
		n.parent = dir
		dir.nlink++
	}
	dir.touch()
}

// detach takes a name out of a directory without releasing the node. m.mu is held for writing.
func (m *MemoryFS) detach(dir *memoryNode, slot memorySlot) {
	dir.children = without(dir.children, slot.name, &dir.most)
	if slot.node.mode.IsDir() {
		dir.nlink--
	}
	dir.touch()
}

// touch records a change of content.
func (n *memoryNode) touch() {
	n.mtime = time.Now()
	n.ctime = n.mtime
}

// drop gives up one name of a detached node, and the node itself if it was the last use. m.mu is held for writing.
func (m *MemoryFS) drop(n *memoryNode) {
	m.bytes -= memoryEntryCost
	if n.mode.IsDir() {
		n.nlink = 0
	} else {
		n.nlink--
	}
	n.ctime = time.Now()
	m.release(n)
}

// release frees a node without names and handles. m.mu is held for writing.
func (m *MemoryFS) release(n *memoryNode) {
	if n.nlink > 0 || n.open > 0 {
		return
	}
	m.inodes--
	m.bytes -= n.data.bytes() + int64(len(n.target)) + n.xattrBytes()
	n.data, n.xattrs = memoryData{}, nil
}

// add makes a node under a free name. m.mu is held for writing.
func (m *MemoryFS) add(dir *memoryNode, name string, mode Mode, create Create) (*memoryNode, error) {
	if m.inodes >= m.cfg.MaxInodes {
		return nil, ENOSPC
	}
	if mode.IsDir() && dir.nlink >= memoryMaxLinks {
		return nil, EMLINK
	}
	if err := m.charge(memoryEntryCost); err != nil {
		return nil, err
	}
	n := m.newNode(dir.inherit(mode, &create), create)
	m.attach(dir, name, n)
	return n, nil
}

// inherit is inode_init_owner of fs/inode.c: what a set-group-ID directory gives to its new entries.
func (n *memoryNode) inherit(mode Mode, create *Create) Mode {
	if n.mode&ModeSetGID == 0 {
		return mode
	}
	create.GID = n.gid
	if mode.IsDir() {
		mode |= ModeSetGID
	}
	return mode
}

// Mkdir implements FS.
func (m *MemoryFS) Mkdir(name string, create Create) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, slot, err := m.vacant(name)
	if err != nil {
		return err
	}
	_, err = m.add(dir, slot.name, ModeDir|create.Perm&ModeBits, create)
	return err
}

// vacant is entry for a name that must be free.
func (m *MemoryFS) vacant(name string) (*memoryNode, memorySlot, error) {
	if name == "." {
		return nil, memorySlot{}, EEXIST
	}
	dir, slot, err := m.entry(name)
	if err == nil && slot.node != nil {
		err = EEXIST
	}
	return dir, slot, err
}

// occupied is entry for a name that must exist.
func (m *MemoryFS) occupied(name string) (*memoryNode, memorySlot, error) {
	dir, slot, err := m.entry(name)
	if err == nil && slot.node == nil {
		err = ENOENT
	}
	return dir, slot, err
}

// Unlink implements FS.
func (m *MemoryFS) Unlink(name string) error {
	if name == "." {
		return EISDIR
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, slot, err := m.occupied(name)
	if err != nil {
		return err
	}
	if slot.node.mode.IsDir() {
		return EISDIR
	}
	m.detach(dir, slot)
	m.drop(slot.node)
	return nil
}

// Rmdir implements FS.
func (m *MemoryFS) Rmdir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, slot, err := m.occupied(name)
	if err != nil {
		return err
	}
	if !slot.node.mode.IsDir() {
		return ENOTDIR
	}
	if len(slot.node.children) > 0 {
		return ENOTEMPTY
	}
	m.detach(dir, slot)
	m.drop(slot.node)
	return nil
}

// Link implements Linker.
func (m *MemoryFS) Link(oldName, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.walk(oldName)
	if err != nil {
		return err
	}
	dir, slot, err := m.vacant(newName)
	switch {
	case err != nil:
		return err
	case n.mode.IsDir():
		return EPERM
	case n.nlink >= memoryMaxLinks:
		return EMLINK
	}
	if err := m.charge(memoryEntryCost); err != nil {
		return err
	}
	n.nlink++
	n.ctime = time.Now()
	m.attach(dir, slot.name, n)
	return nil
}

// Symlink implements Symlinker.
func (m *MemoryFS) Symlink(target, newName string, create Create) error {
	if err := checkTarget(target); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, slot, err := m.vacant(newName)
	if err != nil {
		return err
	}
	size := int64(len(target))
	if err := m.charge(size); err != nil {
		return err
	}
	n, err := m.add(dir, slot.name, ModeSymlink|0o777, create)
	if err != nil {
		m.bytes -= size
		return err
	}
	n.target = target
	return nil
}

// Readlink implements Readlinker.
func (m *MemoryFS) Readlink(name string) (string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.walk(name)
	if err != nil {
		return "", err
	}
	if !n.mode.IsSymlink() {
		return "", EINVAL
	}
	return n.target, nil
}

// ReadDir implements FS. The listing is that of one instant.
func (m *MemoryFS) ReadDir(name string) iter.Seq2[DirEntry, error] {
	return func(yield func(DirEntry, error) bool) {
		list, err := m.list(name)
		if err != nil {
			yield(DirEntry{}, err)
			return
		}
		for _, e := range list {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (m *MemoryFS) list(name string) ([]DirEntry, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.walk(name)
	if err != nil {
		return nil, err
	}
	if !n.mode.IsDir() {
		return nil, ENOTDIR
	}
	list := make([]DirEntry, 0, len(n.children))
	for name, child := range n.children {
		list = append(list, DirEntry{Name: name, Type: child.mode.Type(), Dev: 1, Ino: child.ino})
	}
	return list, nil
}

// SetAttr implements FS.
func (m *MemoryFS) SetAttr(name string, set SetAttr) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.walk(name)
	if err != nil {
		return err
	}
	return m.setAttr(n, set)
}

// setAttr changes a node. m.mu is held for writing.
func (m *MemoryFS) setAttr(n *memoryNode, set SetAttr) error {
	now := time.Now()
	if set.Has(SetSize) {
		if err := m.truncate(n, set.Size); err != nil {
			return err
		}
		n.mtime = now
	}
	if set.Has(SetMode) {
		if n.mode.IsSymlink() {
			return EOPNOTSUPP
		}
		n.mode = n.mode.Type() | set.Mode&ModeBits
	}
	if set.Has(SetUID) {
		n.uid = set.UID
	}
	if set.Has(SetGID) {
		n.gid = set.GID
	}
	if set.Has(SetAtime) {
		n.atime = set.Atime
	}
	if set.Has(SetMtime) {
		n.mtime = set.Mtime
	}
	n.ctime = now
	return nil
}

func (m *MemoryFS) truncate(n *memoryNode, size int64) error {
	switch {
	case n.mode.IsDir():
		return EISDIR
	case !n.mode.IsRegular() || size < 0:
		return EINVAL
	case size > MaxFileSize:
		return EFBIG
	}
	before := n.data.bytes()
	n.data.truncate(size)
	m.bytes += n.data.bytes() - before
	return nil
}
