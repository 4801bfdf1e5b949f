package vfs

import "time"

// Rename implements FS with the rules of renameat2(2).
func (m *MemoryFS) Rename(oldName, newName string, flags RenameFlag) error {
	if flags&^(RenameNoReplace|RenameExchange) != 0 || flags == RenameNoReplace|RenameExchange {
		return EINVAL
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	from, err := m.renameEnd(oldName)
	if err != nil {
		return err
	}
	to, err := m.renameEnd(newName)
	switch {
	case err != nil:
		return err
	case from.slot.node == nil:
		return ENOENT
	case flags&RenameNoReplace != 0 && to.slot.node != nil:
		return EEXIST
	case flags&RenameExchange != 0 && to.slot.node == nil:
		return ENOENT
	case from.slot.node.contains(to.dir):
		return EINVAL
	case from.slot.node == to.slot.node:
		return nil // the same file under both names: nothing changes
	}
	if flags&RenameExchange != 0 {
		return m.exchange(from, to)
	}
	if to.slot.node != nil && to.slot.node.contains(from.dir) {
		return ENOTEMPTY
	}
	return m.move(from, to)
}

// memoryEnd is one end of a rename.
type memoryEnd struct {
	dir  *memoryNode
	slot memorySlot
}

func (m *MemoryFS) renameEnd(name string) (memoryEnd, error) {
	dir, slot, err := m.entry(name)
	return memoryEnd{dir, slot}, err
}

// contains reports whether dir is n or lies below it.
func (n *memoryNode) contains(dir *memoryNode) bool {
	if !n.mode.IsDir() {
		return false
	}
	for ; dir != n; dir = dir.parent {
		if dir.parent == dir || dir.parent == nil {
			return false
		}
	}
	return true
}

// move replaces what is at to, if anything. m.mu is held for writing.
func (m *MemoryFS) move(from, to memoryEnd) error {
	src, dst := from.slot.node, to.slot.node
	if dst != nil {
		switch {
		case dst.mode.IsDir() && !src.mode.IsDir():
			return EISDIR
		case !dst.mode.IsDir() && src.mode.IsDir():
			return ENOTDIR
		case len(dst.children) > 0:
			return ENOTEMPTY
		}
	} else if src.mode.IsDir() && from.dir != to.dir && to.dir.nlink >= memoryMaxLinks {
		return EMLINK
	}
	if dst != nil {
		m.detach(to.dir, to.slot)
		m.drop(dst)
	}
	m.detach(from.dir, from.slot)
	m.attach(to.dir, to.slot.name, src)
	src.ctime = time.Now()
	return nil
}

// exchange swaps two entries of any kind. m.mu is held for writing.
func (m *MemoryFS) exchange(from, to memoryEnd) error {
	if to.slot.node.contains(from.dir) {
		return EINVAL
	}
	m.detach(from.dir, from.slot)
	m.detach(to.dir, to.slot)
	m.attach(to.dir, to.slot.name, from.slot.node)
	m.attach(from.dir, from.slot.name, to.slot.node)
	from.slot.node.ctime = time.Now()
	to.slot.node.ctime = from.slot.node.ctime
	return nil
}
