package registry

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"k8s.io/utils/third_party/forked/golang/btree"
)

// item is a decoded record in a tree: in the main tree of its kind by key, in the
// tree of an index by what the index finds it by, then by key.
type item struct {
	found    string // by an index; "" in the main tree
	key      string
	record   any // *Record[T]
	revision int64
}

func less(a, b item) bool {
	if a.found != b.found {
		return a.found < b.found
	}
	return a.key < b.key
}

type tree = btree.BTree[item]

// degree makes nodes of a few cache lines' keys; measured, 16 to 64 are alike.
const degree = 32

// table holds the records of one kind: its main tree under "", and one tree for
// every index.
type table map[string]*tree

// view is the state at one revision. What readers see is never changed: the writer
// clones the trees that it touched, which costs nothing until it writes again.
type view struct {
	revision int64
	tables   map[string]table // by kind
}

// anyKind is a Kind of whatever type.
type anyKind interface {
	Name() string
	// read decodes a record; what others have as well comes from the pool.
	read(p *pool, key string, kv *mvccpb.KeyValue) (item, error)
	indexNames() []string
	// found gives all that an index finds an item by.
	found(index string, i item) iter.Seq[string]
}

func (k Kind[T]) read(p *pool, key string, kv *mvccpb.KeyValue) (item, error) {
	v, err := k.decode(p, key, kv.Value)
	r := &Record[T]{Key: key, Value: v, Revision: kv.ModRevision, Created: kv.CreateRevision}
	return item{key: key, record: r, revision: kv.ModRevision}, err
}

func (k Kind[T]) indexNames() []string {
	return slices.AppendSeq(slices.Collect(maps.Keys(k.indexes)), maps.Keys(k.lists))
}

func (k Kind[T]) found(index string, i item) iter.Seq[string] {
	if list := k.lists[index]; list != nil {
		return list(i.record.(*Record[T]).Value)
	}
	return func(yield func(string) bool) {
		if found := k.indexes[index](i.record.(*Record[T]).Value); found != "" {
			yield(found)
		}
	}
}

// builder is the writer's side of a view.
type builder struct {
	kinds   map[string]anyKind
	tables  map[string]table // written to, never shared
	touched map[string]bool  // kinds written to since the last publish
	last    *view
}

func newBuilder(kinds []anyKind) *builder {
	b := &builder{kinds: map[string]anyKind{}, tables: map[string]table{}, touched: map[string]bool{}, last: &view{}}
	for _, k := range kinds {
		t := table{"": btree.New(degree, less)}
		for _, index := range k.indexNames() {
			t[index] = btree.New(degree, less)
		}
		b.kinds[k.Name()], b.tables[k.Name()], b.touched[k.Name()] = k, t, true
	}
	b.publish(0)
	return b
}

// get gives the item of a kind with this key.
func (b *builder) get(kind, key string) (item, bool) { return b.tables[kind][""].Get(item{key: key}) }

func (b *builder) put(kind string, i item) {
	old, replaced := b.tables[kind][""].ReplaceOrInsert(i)
	if replaced {
		b.unindex(kind, old)
	}
	for _, index := range b.kinds[kind].indexNames() {
		for found := range b.kinds[kind].found(index, i) {
			b.tables[kind][index].ReplaceOrInsert(item{found: found, key: i.key, record: i.record, revision: i.revision})
		}
	}
	b.touched[kind] = true
}

// remove says whether there was such an item.
func (b *builder) remove(kind, key string) bool {
	old, ok := b.tables[kind][""].Delete(item{key: key})
	if ok {
		b.unindex(kind, old)
		b.touched[kind] = true
	}
	return ok
}

func (b *builder) unindex(kind string, old item) {
	for _, index := range b.kinds[kind].indexNames() {
		for found := range b.kinds[kind].found(index, old) {
			b.tables[kind][index].Delete(item{found: found, key: old.key})
		}
	}
}

// publish gives what has been built so far as a view at revision.
func (b *builder) publish(revision int64) *view {
	v := &view{revision: revision, tables: b.last.tables}
	if len(b.touched) > 0 {
		v.tables = make(map[string]table, len(b.tables))
		maps.Copy(v.tables, b.last.tables)
		for kind := range b.touched {
			t := make(table, len(b.tables[kind]))
			for name, tree := range b.tables[kind] {
				t[name] = tree.Clone()
			}
			v.tables[kind] = t
		}
		clear(b.touched)
	}
	b.last = v
	return v
}

// Lookup gives the record with this key as the cache knows it.
func Lookup[T any](c *Cache, kind Kind[T], key string) (Record[T], bool) {
	i, ok := c.view.Load().tables[kind.name][""].Get(item{key: key})
	if !ok {
		return Record[T]{}, false
	}
	return *i.record.(*Record[T]), true
}

// All gives the records of a kind in the order of their keys, as they were at one
// revision: the one at which the iteration begins.
func All[T any](c *Cache, kind Kind[T]) iter.Seq[Record[T]] {
	return func(yield func(Record[T]) bool) {
		c.view.Load().tables[kind.name][""].Ascend(func(i item) bool {
			return yield(*i.record.(*Record[T]))
		})
	}
}

// After is All from the first record on whose key comes after this one; "" = from the
// beginning. It costs nothing to begin late.
func After[T any](c *Cache, kind Kind[T], key string) iter.Seq[Record[T]] {
	return func(yield func(Record[T]) bool) {
		c.view.Load().tables[kind.name][""].AscendGreaterOrEqual(item{key: key}, func(i item) bool {
			return i.key == key || yield(*i.record.(*Record[T]))
		})
	}
}

// Len says how many records of a kind the cache has.
func Len[T any](c *Cache, kind Kind[T]) int {
	return c.view.Load().tables[kind.name][""].Len()
}

// selectBy gives the records that an index finds, in the order of their keys. It
// costs what they cost, however many others there are.
func selectBy[T any](c *Cache, kind Kind[T], index, found string) iter.Seq[Record[T]] {
	return func(yield func(Record[T]) bool) {
		c.view.Load().tables[kind.name][index].AscendGreaterOrEqual(item{found: found}, func(i item) bool {
			return i.found == found && yield(*i.record.(*Record[T]))
		})
	}
}

// foundBy gives all that an index finds something by and that begins with a prefix, each once and in
// order. It costs what they cost, however many records each of them finds.
func foundBy[T any](c *Cache, kind Kind[T], index, prefix string) iter.Seq[string] {
	return func(yield func(string) bool) {
		tree := c.view.Load().tables[kind.name][index]
		from := prefix
		for next := true; next; {
			next = false
			tree.AscendGreaterOrEqual(item{found: from}, func(i item) bool {
				if strings.HasPrefix(i.found, prefix) && yield(i.found) {
					next, from = true, i.found+"\x00"
				}
				return false
			})
		}
	}
}
