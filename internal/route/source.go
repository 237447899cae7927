package route

import "net/netip"

// Source says who calls from an address.
type Source struct {
	Environment string // its name
	Service     string // "" = several
}

// SetSource says that whoever calls from an address belongs to an environment; a Source without one
// takes that back.
func (t *Table) SetSource(addr netip.Addr, from Source) {
	b := addr.As16()
	key := string(b[:])
	t.mu.Lock()
	defer t.mu.Unlock()
	t.change(func(s *state) {
		if from.Environment == "" {
			s.sources = s.sources.without(key)
			return
		}
		s.sources = s.sources.with(key, &from)
	})
}

// Source says who calls from an address; the zero Source where nobody has it for himself. It does not
// allocate.
func (t *Table) Source(addr netip.Addr) Source {
	if !addr.IsValid() {
		return Source{}
	}
	b := addr.As16()
	if from := t.state.Load().sources.get(b[:]); from != nil {
		return *from
	}
	return Source{}
}
