package registry

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
)

// page is how many records one request of load reads. For every page etcd counts all that
// are left, so many small ones would cost more than what they read.
const page = 10_000

// retryPause is how long to wait before etcd is asked again after an error.
const retryPause = 100 * time.Millisecond

// watchContext gives the cache's watch a stream of its own, whose progress depends
// on no other watch, and ends it on a member that has lost the cluster.
func watchContext(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), "dayfly", "cache")
}

// split takes kind and key from a path in etcd. There is no kind where it is one of a newer
// version of dayfly.
func (b *builder) split(p *pool, path []byte) (kind anyKind, key string) {
	name, rest, _ := bytes.Cut(bytes.TrimPrefix(path, []byte(recordPrefix)), []byte("/"))
	if kind = b.kinds[string(name)]; kind == nil {
		return nil, ""
	}
	return kind, p.text(rest)
}

// loaded is everything at one revision.
type loaded struct {
	revision int64
	records  []loadedRecord // in their order in etcd
}

// loadedRecord is a record, or why it cannot be read.
type loadedRecord struct {
	changeKey
	item       item
	unreadable error
}

// load reads everything at one revision, page by page.
func (c *Cache) load(ctx context.Context) (loaded, error) {
	for {
		l, err := c.loadOnce(ctx)
		// Compacted while reading: begin again at a newer revision.
		if !errors.Is(err, rpctypes.ErrCompacted) {
			return l, err
		}
	}
}

func (c *Cache) loadOnce(ctx context.Context) (l loaded, err error) {
	from, end := recordPrefix, clientv3.GetPrefixRangeEnd(recordPrefix)
	pool := newPool()
	for {
		resp, err := c.readPage(ctx, from, end, l.revision)
		if err != nil {
			return l, err
		}
		if l.revision == 0 {
			l.revision = resp.Header.Revision
			l.records = make([]loadedRecord, 0, resp.Count)
		}
		l.records = append(l.records, c.readAll(pool, resp.Kvs)...)
		if !resp.More {
			return l, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// readAll decodes records, on all cores.
func (c *Cache) readAll(pool *pool, kvs []*mvccpb.KeyValue) []loadedRecord {
	records := make([]loadedRecord, len(kvs))
	var all sync.WaitGroup
	cores := runtime.GOMAXPROCS(0)
	for core := range cores {
		all.Go(func() {
			for i := len(kvs) * core / cores; i < len(kvs)*(core+1)/cores; i++ {
				r := &records[i]
				kind, key := c.builder.split(pool, kvs[i].Key)
				if kind == nil {
					continue
				}
				r.changeKey = changeKey{kind.Name(), key}
				r.item, r.unreadable = kind.read(pool, key, kvs[i])
			}
		})
	}
	all.Wait()
	return slices.DeleteFunc(records, func(r loadedRecord) bool { return r.kind == "" })
}

func (c *Cache) readPage(ctx context.Context, from, end string, revision int64) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, c.store.timeout)
	defer cancel()
	resp, err := c.store.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(revision))
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		err = c.store.failure(ctx, err)
	}
	return resp, err
}

// replace makes what was loaded the state, and tells how it differs from the one
// before.
func (c *Cache) replace(l loaded) {
	there := make(map[changeKey]bool, len(l.records))
	for _, r := range l.records {
		there[r.changeKey] = true
	}
	changes := make([]Change, 0, len(l.records))
	for kind, t := range c.builder.tables {
		t[""].Clone().Ascend(func(i item) bool {
			if !there[changeKey{kind, i.key}] {
				c.builder.remove(kind, i.key)
				changes = append(changes, Change{Kind: kind, Key: i.key, Revision: l.revision, Deleted: true})
			}
			return true
		})
	}
	// Trees that are filled in order leave half of each node unused, but for room on the
	// left, which filling backwards makes use of.
	for _, r := range slices.Backward(l.records) {
		if r.unreadable != nil {
			c.log.Error("a record is left as it was last known", "error", r.unreadable)
			continue
		}
		if old, ok := c.builder.get(r.kind, r.key); !ok || old.revision != r.item.revision {
			c.builder.put(r.kind, r.item)
			changes = append(changes, Change{Kind: r.kind, Key: r.key, Revision: r.item.revision})
		}
	}
	slices.SortFunc(changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key))
	})
	c.publish(l.revision, changes)
}

// follow keeps the state current until ctx ends.
func (c *Cache) follow(ctx context.Context) {
	for {
		err := c.watch(ctx)
		if errors.Is(err, rpctypes.ErrCompacted) {
			var l loaded
			if l, err = c.load(ctx); err == nil {
				c.replace(l)
				continue
			}
		}
		if ctx.Err() != nil {
			return
		}
		c.setHealth(func() { c.watching = false })
		c.log.Debug("the watch on etcd ended and is begun again", "revision", c.Revision(), "error", err)
		pause(ctx)
	}
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context) {
	t := time.NewTimer(retryPause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// watch follows from the revision that is known until the watch ends, and says why.
// The client mends lost connections by itself, from the last revision that it gave.
func (c *Cache) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(watchContext(ctx))
	defer cancel()
	watch := c.store.client.Watch(ctx, recordPrefix, clientv3.WithPrefix(),
		clientv3.WithRev(c.Revision()+1), clientv3.WithCreatedNotify())
	for resp := range watch {
		if err := resp.Err(); err != nil {
			return err
		}
		if resp.Created {
			c.setHealth(func() { c.watching = true })
			continue
		}
		c.apply(resp)
	}
	return errors.New("the stream was closed")
}

// apply takes in what happened after the revision that is known.
func (c *Cache) apply(resp clientv3.WatchResponse) {
	if resp.IsProgressNotify() {
		// Nothing up to here that has not been told.
		if resp.Header.Revision > c.Revision() {
			c.publish(resp.Header.Revision, nil)
		}
		return
	}
	if c.pool.full() {
		c.pool = newPool()
	}
	known := c.Revision()
	revision := known
	var changes []Change
	for _, e := range resp.Events {
		if e.Kv.ModRevision <= known {
			continue
		}
		revision = e.Kv.ModRevision
		kind, key := c.builder.split(c.pool, e.Kv.Key)
		if kind == nil {
			continue
		}
		if e.Type == mvccpb.Event_DELETE {
			if c.builder.remove(kind.Name(), key) {
				changes = append(changes, Change{Kind: kind.Name(), Key: key, Revision: revision, Deleted: true})
			}
			continue
		}
		i, err := kind.read(c.pool, key, e.Kv)
		if err != nil {
			c.log.Error("a record is left as it was last known", "error", err)
			continue
		}
		c.builder.put(kind.Name(), i)
		changes = append(changes, Change{Kind: kind.Name(), Key: key, Revision: revision})
	}
	c.publish(revision, changes)
}

// followConnection keeps track of whether there is a connection to the cluster. The
// embedded etcd needs none.
func (c *Cache) followConnection(ctx context.Context) {
	conn := c.store.client.ActiveConnection()
	if conn == nil {
		return
	}
	for {
		state := conn.GetState()
		c.setHealth(func() { c.connected = state == connectivity.Ready || state == connectivity.Idle })
		if !conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}
