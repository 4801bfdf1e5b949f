package netstack

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"sync"
)

var errNamesFull = errors.New("cannot give the name an address: the table is full")

// Names gives every name the guest asks for an address of Synthetic, always the
// same and shared with no other name. The zero value is ready. A guest remembers
// addresses, so its Names must live as long as it does, across Stacks.
type Names struct {
	mu     sync.Mutex // guards the fields below
	byName map[string]netip.Addr
	byAddr map[netip.Addr]string
}

// address returns the name's address. The name is lower case, without a dot
// at its end.
func (n *Names) address(name string) (netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if addr, ok := n.byName[name]; ok {
		return addr, nil
	}
	if len(n.byName) >= maxNames {
		return netip.Addr{}, errNamesFull
	}
	if n.byName == nil {
		n.byName, n.byAddr = make(map[string]netip.Addr), make(map[netip.Addr]string)
	}
	name = strings.Clone(name) // not a piece of a larger message
	addr := syntheticAddr(len(n.byName))
	n.byName[name], n.byAddr[addr] = addr, name
	return addr, nil
}

// name returns the name an address stands for, "" if none.
func (n *Names) name(addr netip.Addr) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.byAddr[addr]
}

// syntheticAddr is the i-th address, skipping those ending in 0 and 255, which
// some software takes for a network or a broadcast.
func syntheticAddr(i int) netip.Addr {
	const usable = 254
	base := Synthetic.Addr().As4()
	var b [4]byte
	//nolint:gosec // G115: i < maxNames
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(base[:])+uint32(i/usable*256+i%usable+1))
	return netip.AddrFrom4(b)
}
