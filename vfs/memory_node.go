package vfs

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"time"
)

// Mknod implements Mknoder.
func (m *MemoryFS) Mknod(name string, kind Mode, create Create) error {
	if kind != ModeFIFO && kind != ModeSocket {
		return EPERM
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, slot, err := m.vacant(name)
	if err != nil {
		return err
	}
	_, err = m.add(dir, slot.name, kind|create.Perm&ModeBits, create)
	return err
}

// TmpFile implements TmpFiler.
func (m *MemoryFS) TmpFile(dir string, create Create) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	parent, err := m.walk(dir)
	switch {
	case err != nil:
		return nil, err
	case !parent.mode.IsDir():
		return nil, ENOTDIR
	case m.inodes >= m.cfg.MaxInodes:
		return nil, ENOSPC
	}
	n := m.newNode(parent.inherit(ModeRegular|create.Perm&ModeBits, &create), create)
	n.nlink, n.open, n.nameless = 0, 1, true
	return &memoryFile{fs: m, node: n, writable: true}, nil
}

// LstatIn implements DirStater.
func (m *MemoryFS) LstatIn(dir string, names []string) iter.Seq2[Attr, error] {
	return func(yield func(Attr, error) bool) {
		for _, e := range m.lstatIn(dir, names) {
			if !yield(e.attr, e.err) {
				return
			}
		}
	}
}

// memoryStat is one result of lstatIn.
type memoryStat struct {
	attr Attr
	err  error
}

func (m *MemoryFS) lstatIn(dir string, names []string) []memoryStat {
	m.mu.RLock()
	defer m.mu.RUnlock()
	parent, err := m.walk(dir)
	if err == nil {
		err = parent.searchable()
	}
	list := make([]memoryStat, len(names))
	for i, name := range names {
		switch {
		case err != nil:
			list[i].err = err
		case parent.children[name] == nil:
			list[i].err = ENOENT
		default:
			list[i].attr = parent.children[name].attr()
		}
	}
	return list
}

// keepsXattr refuses the namespaces that would have to mean something: ACLs and capabilities.
func keepsXattr(attr string) error {
	switch {
	case len(attr) > MaxXattrName:
		return ERANGE
	case attr == "" || strings.IndexByte(attr, 0) >= 0:
		return EINVAL
	case strings.HasPrefix(attr, "user.") && attr != "user.", strings.HasPrefix(attr, "trusted.") && attr != "trusted.":
		return nil
	}
	return EOPNOTSUPP
}

// xattrBytes is what the attributes of n are charged.
func (n *memoryNode) xattrBytes() int64 {
	var sum int64
	for attr, value := range n.xattrs {
		sum += memoryXattrCost + int64(len(attr)+len(value))
	}
	return sum
}

// GetXattr implements XattrFS for the user and trusted namespaces.
func (m *MemoryFS) GetXattr(name, attr string) ([]byte, error) {
	if err := keepsXattr(attr); err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.walk(name)
	if err != nil {
		return nil, err
	}
	value, ok := n.xattrs[attr]
	if !ok {
		return nil, ENODATA
	}
	return []byte(value), nil
}

// SetXattr implements XattrFS.
func (m *MemoryFS) SetXattr(name, attr string, value []byte, flags XattrFlag) error {
	if err := keepsXattr(attr); err != nil {
		return err
	}
	if flags&^(XattrCreate|XattrReplace) != 0 || flags == XattrCreate|XattrReplace {
		return EINVAL
	}
	if len(value) > MaxXattrValue {
		return E2BIG
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.walk(name)
	if err != nil {
		return err
	}
	old, exists := n.xattrs[attr]
	switch {
	case exists && flags&XattrCreate != 0:
		return EEXIST
	case !exists && flags&XattrReplace != 0:
		return ENODATA
	}
	cost := int64(len(value) - len(old))
	if !exists {
		if n.xattrListSize()+len(attr)+1 > MaxXattrList {
			return ENOSPC
		}
		cost += memoryXattrCost + int64(len(attr))
	}
	if err := m.charge(cost); err != nil {
		return err
	}
	if n.xattrs == nil {
		n.xattrs = map[string]string{}
	}
	n.xattrs[attr] = string(value)
	n.ctime = time.Now()
	return nil
}

func (n *memoryNode) xattrListSize() int {
	sum := 0
	for attr := range n.xattrs {
		sum += len(attr) + 1
	}
	return sum
}

// ListXattr implements XattrFS.
func (m *MemoryFS) ListXattr(name string) ([]string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n, err := m.walk(name)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(n.xattrs)), nil
}

// RemoveXattr implements XattrFS.
func (m *MemoryFS) RemoveXattr(name, attr string) error {
	if err := keepsXattr(attr); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.walk(name)
	if err != nil {
		return err
	}
	value, ok := n.xattrs[attr]
	if !ok {
		return ENODATA
	}
	m.bytes -= memoryXattrCost + int64(len(attr)+len(value))
	delete(n.xattrs, attr)
	n.ctime = time.Now()
	return nil
}
