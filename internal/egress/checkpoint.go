package egress

import (
	"fmt"
	"maps"
	"net/netip"

	"gondolin/internal/netstack"
)

// Continue is what a guest remembers of its way out. A copy of the guest remembers it
// too, so the gateway of the copy takes it over. It holds no secret's value and no key
// but in memory.
type Continue struct {
	// Placeholders are those in the environment of the guest's processes, by the
	// name of the secret.
	Placeholders map[string]string `json:"placeholders,omitempty"`
	// Names are those that have an address in the guest, in the order of the addresses.
	Names []string `json:"names,omitempty"`
	// Flows are the connections it takes for open.
	Flows []Flow `json:"flows,omitempty"`

	ca *authority // nil: a new one
}

// Flow is one TCP connection of the guest.
type Flow struct {
	To    netip.AddrPort `json:"to"`
	Guest netip.AddrPort `json:"guest"`
}

// maxFlows bounds the flows that are taken over; a stack has fewer.
const maxFlows = 4096

// Continue returns what the guest knows now. A gateway that continues from the value
// itself has the same CA; one that continues from its JSON has a new one.
func (g *Gateway) Continue() *Continue {
	c := &Continue{Placeholders: maps.Clone(g.vault.env), Names: g.names.List(), ca: g.ca}
	if stack := g.stack.Load(); stack != nil {
		for _, f := range stack.Flows() {
			c.Flows = append(c.Flows, Flow{To: f.Addr, Guest: f.Guest})
		}
	}
	return c
}

func (c *Continue) orNothing() *Continue {
	if c == nil {
		return &Continue{}
	}
	return c
}

func (c *Continue) authority() (*authority, error) {
	if c.ca != nil {
		return c.ca, nil
	}
	return newAuthority()
}

func (c *Continue) flows() []netstack.Flow {
	list := make([]netstack.Flow, 0, min(len(c.Flows), maxFlows))
	for _, f := range c.Flows[:min(len(c.Flows), maxFlows)] {
		list = append(list, netstack.Flow{Addr: f.To, Guest: f.Guest})
	}
	return list
}

// Check reports what cannot have come from a gateway.
func (c *Continue) Check() error {
	if _, err := netstack.NamesOf(c.Names); err != nil {
		return err
	}
	for name, placeholder := range c.Placeholders {
		if _, err := placeholderFor(placeholder); err != nil {
			return fmt.Errorf("cannot use the placeholder of secret %s: %w", name, err)
		}
	}
	return nil
}
