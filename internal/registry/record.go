package registry

import (
	"context"
	"iter"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dayfly-dev/dayfly"
)

// Kind is a kind of records with values of type T. Kinds are values that never
// change; a new one must also be listed in kinds, so that caches hold it.
type Kind[T any] struct {
	name string
	// indexes find records by something else than their key: a function gives
	// what a record is found by, "" = not at all.
	indexes map[string]func(T) string
	// lists are indexes that may find a record by several things at once.
	lists map[string]func(T) iter.Seq[string]
	// save and load are for types whose JSON leaves out what has to be kept.
	save func(T) any
	load func(p *pool, key string, data []byte) (T, error)
	// share makes one of the strings of a record that others have as well.
	share func(p *pool, v *T)
}

// Name is the kind's part of the keys in etcd, and the Kind of a Change.
func (k Kind[T]) Name() string { return k.name }

// Record is a value with its place in the state.
type Record[T any] struct {
	Key      string
	Value    T     // shared by all readers of a Cache: never change what it points to
	Revision int64 // of the last change
	Created  int64 // revision of its creation
}

func (k Kind[T]) path(key string) string { return recordPrefix + k.name + "/" + key }

func (k Kind[T]) encode(v T) ([]byte, error) {
	if k.save != nil {
		return encode(k.save(v))
	}
	return encode(v)
}

func (k Kind[T]) decode(p *pool, key string, data []byte) (v T, err error) {
	if k.load != nil {
		v, err = k.load(p, k.name+"/"+key, data)
	} else {
		v, err = decode[T](k.name+"/"+key, data)
	}
	if k.share != nil {
		k.share(p, &v)
	}
	return v, err
}

// Get reads one record from etcd. One that is not there is dayfly.CodeNotFound.
func Get[T any](ctx context.Context, s *Store, kind Kind[T], key string) (Record[T], error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	resp, err := s.client.Get(ctx, kind.path(key))
	if err != nil {
		return Record[T]{}, s.failure(ctx, err)
	}
	if len(resp.Kvs) == 0 {
		return Record[T]{}, dayfly.Errorf(dayfly.CodeNotFound, "there is no %s %q", kind.name, key)
	}
	kv := resp.Kvs[0]
	v, err := kind.decode(nil, key, kv.Value)
	return Record[T]{Key: key, Value: v, Revision: kv.ModRevision, Created: kv.CreateRevision}, err
}

// List reads all records of a kind from etcd, in the order of their keys.
func List[T any](ctx context.Context, s *Store, kind Kind[T]) ([]Record[T], error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	prefix := kind.path("")
	resp, err := s.client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, s.failure(ctx, err)
	}
	list := make([]Record[T], 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		key := strings.TrimPrefix(string(kv.Key), prefix)
		v, err := kind.decode(nil, key, kv.Value)
		if err != nil {
			return nil, err
		}
		list = append(list, Record[T]{Key: key, Value: v, Revision: kv.ModRevision, Created: kv.CreateRevision})
	}
	return list, nil
}
