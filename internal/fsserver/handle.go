package fsserver

import (
	"slices"
	"sync"

	"gondolin/vfs"
)

// handle is an open file or directory.
type handle struct {
	id    uint64
	node  *node
	file  vfs.File // nil for a directory
	write bool

	refs int // running requests, plus one until released; guarded by handles.mu

	dirMu   sync.Mutex // guards listing; held during a listing by the provider
	listing []vfs.DirEntry
}

// handles holds everything open. Its mu is taken before table.mu.
type handles struct {
	limit    int
	maxNames int

	mu     sync.Mutex
	open   map[uint64]*handle
	count  int // handles not yet closed, and opens under way
	names  int // entries in listings
	lastID uint64
}

func newHandles(l Limits) *handles {
	return &handles{limit: l.Handles, maxNames: l.DirEntries, open: map[uint64]*handle{}}
}

// reserve makes room for a handle before the provider is asked to open.
func (hs *handles) reserve() error {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if hs.count >= hs.limit {
		return vfs.ENFILE
	}
	hs.count++
	return nil
}

// cancel gives a reservation back.
func (hs *handles) cancel() {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.count--
}

// add enters a reserved handle.
func (hs *handles) add(t *table, h *handle) uint64 {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.lastID++
	h.id = hs.lastID
	h.refs = 1
	hs.open[h.id] = h
	t.mu.Lock()
	defer t.mu.Unlock()
	h.node.open = append(h.node.open, h)
	return h.id
}

// get returns a handle for the time of a request; the caller calls put.
func (hs *handles) get(id uint64) (*handle, error) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	h, ok := hs.open[id]
	if !ok {
		return nil, vfs.EBADF
	}
	h.refs++
	return h, nil
}

// getFile is get for a regular file.
func (s *Server) getFile(id uint64) (*handle, error) {
	h, err := s.handles.get(id)
	if err == nil && h.file == nil {
		s.put(h)
		return nil, vfs.EBADF
	}
	return h, err
}

// ofNode returns an open file of a node, one for writing if there is one; the caller calls put. EBADF: none.
func (s *Server) ofNode(n *node) (*handle, error) {
	s.handles.mu.Lock()
	defer s.handles.mu.Unlock()
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	var best *handle
	for _, h := range n.open {
		if h.file != nil && (best == nil || h.write && !best.write) {
			best = h
		}
	}
	if best == nil {
		return nil, vfs.EBADF
	}
	best.refs++
	return best, nil
}

// release takes the guest's reference away.
func (s *Server) release(id uint64) error {
	s.handles.mu.Lock()
	h, ok := s.handles.open[id]
	delete(s.handles.open, id)
	s.handles.mu.Unlock()
	if !ok {
		return vfs.EBADF
	}
	s.put(h)
	return nil
}

// put ends a use of a handle and closes it after the last.
func (s *Server) put(h *handle) {
	if s.drop(h) && h.file != nil {
		if err := h.file.Close(); err != nil {
			s.log.Debug("cannot close file", "error", err)
		}
	}
}

// drop reports whether that was the last use.
func (s *Server) drop(h *handle) bool {
	s.handles.mu.Lock()
	defer s.handles.mu.Unlock()
	h.refs--
	if h.refs > 0 {
		return false
	}
	s.handles.count--
	s.handles.names -= len(h.listing)
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	h.node.open = slices.DeleteFunc(h.node.open, func(o *handle) bool { return o == h })
	s.table.settle(h.node)
	return true
}

// closeAll releases what the guest left open.
func (s *Server) closeAll() {
	s.handles.mu.Lock()
	ids := make([]uint64, 0, len(s.handles.open))
	for id := range s.handles.open {
		ids = append(ids, id)
	}
	s.handles.mu.Unlock()
	for _, id := range ids {
		s.closeOne(id)
	}
}

// closeOne survives a provider that panics in Close.
func (s *Server) closeOne(id uint64) {
	defer func() {
		if v := recover(); v != nil {
			s.logPanic(opRelease, v)
		}
	}()
	if err := s.release(id); err != nil {
		s.log.Debug("cannot release handle", "error", err)
	}
}

// countNames replaces a listing's share of the bound.
func (hs *handles) countNames(delta int) error {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if delta > 0 && hs.names+delta > hs.maxNames {
		return vfs.ENOMEM
	}
	hs.names += delta
	return nil
}
