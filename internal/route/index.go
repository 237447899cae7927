package route

import (
	"hash/maphash"
	"math/bits"
	"slices"
)

// index is a persistent map from strings: with and without leave the map that
// they are called on as it was and share all but a path of nodes with it. It is
// a hash trie of 32 slots a node. Lookups take bytes, so that a key built on
// the stack need not become a string, and never allocate.
type index[V any] struct {
	seed maphash.Seed
	root *node[V]
}

type node[V any] struct {
	used  uint32    // bit i: slot i is there
	slots []slot[V] // those that are, in order
}

// slot is a node further down or an entry, never both.
type slot[V any] struct {
	down  *node[V]
	entry *entry[V]
}

type entry[V any] struct {
	hash  uint64
	key   string
	value V
	next  *entry[V] // another key of the same hash
}

const (
	slotBits = 5
	slotMask = 1<<slotBits - 1
)

// get gives the value of key, or the zero value.
func (x index[V]) get(key []byte) V {
	return x.find(maphash.Bytes(x.seed, key), key)
}

// with gives a map that has value under key.
func (x index[V]) with(key string, value V) index[V] {
	e := &entry[V]{hash: maphash.String(x.seed, key), key: key, value: value}
	return index[V]{x.seed, x.root.put(e, 0)}
}

// without gives a map that has nothing under key.
func (x index[V]) without(key string) index[V] {
	root := x.root.remove(maphash.String(x.seed, key), key, 0)
	return index[V]{x.seed, root}
}

func (x index[V]) find(hash uint64, key []byte) (zero V) {
	rest := hash
	for n := x.root; n != nil; rest >>= slotBits {
		bit := uint32(1) << (rest & slotMask)
		if n.used&bit == 0 {
			return zero
		}
		s := &n.slots[n.position(bit)]
		if s.down == nil {
			for e := s.entry; e != nil; e = e.next {
				if e.hash == hash && e.key == string(key) {
					return e.value
				}
			}
			return zero
		}
		n = s.down
	}
	return zero
}

func (n *node[V]) position(bit uint32) int { return bits.OnesCount32(n.used & (bit - 1)) }

// put gives a copy of n, which may be nil, that has e; shift is how many bits of
// the hash led to n.
func (n *node[V]) put(e *entry[V], shift uint) *node[V] {
	bit := uint32(1) << (e.hash >> shift & slotMask)
	if n == nil {
		return &node[V]{bit, []slot[V]{{entry: e}}}
	}
	at := n.position(bit)
	if n.used&bit == 0 {
		slots := make([]slot[V], 0, len(n.slots)+1) // exactly: Insert would leave room that is never used
		slots = append(slots, n.slots[:at]...)
		slots = append(slots, slot[V]{entry: e})
		return &node[V]{n.used | bit, append(slots, n.slots[at:]...)}
	}
	s := n.slots[at]
	switch {
	case s.down != nil:
		s.down = s.down.put(e, shift+slotBits)
	case s.entry.hash == e.hash:
		e.next = s.entry.drop(e.key)
		s.entry = e
	default: // two entries want the slot: both move down
		s.down = s.entry.alone(shift+slotBits).put(e, shift+slotBits)
		s.entry = nil
	}
	return n.replaced(at, s)
}

// alone gives a node that has nothing but the chain of e.
func (e *entry[V]) alone(shift uint) *node[V] {
	return &node[V]{1 << (e.hash >> shift & slotMask), []slot[V]{{entry: e}}}
}

// drop gives the chain without key.
func (e *entry[V]) drop(key string) *entry[V] {
	switch {
	case e == nil:
		return nil
	case e.key == key:
		return e.next
	}
	c := *e
	c.next = e.next.drop(key)
	return &c
}

// remove gives a copy of n without key, nil when nothing is left.
func (n *node[V]) remove(hash uint64, key string, shift uint) *node[V] {
	if n == nil {
		return nil
	}
	bit := uint32(1) << (hash >> shift & slotMask)
	if n.used&bit == 0 {
		return n
	}
	at := n.position(bit)
	s := n.slots[at]
	switch {
	case s.down != nil:
		s.down = s.down.remove(hash, key, shift+slotBits)
		if d := s.down; d != nil && len(d.slots) == 1 && d.slots[0].down == nil {
			s = d.slots[0] // an entry alone needs no node of its own
		}
	case s.entry.hash == hash:
		s.entry = s.entry.drop(key)
	}
	switch {
	case s.down != nil || s.entry != nil:
		return n.replaced(at, s)
	case len(n.slots) == 1:
		return nil
	}
	slots := make([]slot[V], 0, len(n.slots)-1)
	slots = append(slots, n.slots[:at]...)
	return &node[V]{n.used &^ bit, append(slots, n.slots[at+1:]...)}
}

func (n *node[V]) replaced(at int, s slot[V]) *node[V] {
	slots := slices.Clone(n.slots)
	slots[at] = s
	return &node[V]{n.used, slots}
}
