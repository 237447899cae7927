package registry

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
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

// split takes kind and key from a path in etcd.
func split(path []byte) (kind, key string) {
	kind, key, _ = strings.Cut(strings.TrimPrefix(string(path), recordPrefix), "/")
	return kind, key
}

// loaded is everything at one revision.
type loaded struct {
	revision   int64
	items      map[changeKey]item
	order      []changeKey // of the items in etcd
	unreadable map[changeKey]error
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

func (c *Cache) loadOnce(ctx context.Context) (loaded, error) {
	l := loaded{items: map[changeKey]item{}, unreadable: map[changeKey]error{}}
	from, end := recordPrefix, clientv3.GetPrefixRangeEnd(recordPrefix)
	for {
		resp, err := c.readPage(ctx, from, end, l.revision)
		if err != nil {
			return l, err
		}
		if l.revision == 0 {
			l.revision = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			kind, key := split(kv.Key)
			if c.builder.kinds[kind] == nil {
				continue // of a newer version of dayfly
			}
			if i, err := c.builder.kinds[kind].read(key, kv); err != nil {
				l.unreadable[changeKey{kind, key}] = err
			} else {
				l.items[changeKey{kind, key}] = i
				l.order = append(l.order, changeKey{kind, key})
			}
		}
		if !resp.More {
			return l, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
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
	var changes []Change
	for kind, t := range c.builder.tables {
		t[""].Clone().Ascend(func(i item) bool {
			k := changeKey{kind, i.key}
			if _, there := l.items[k]; !there && l.unreadable[k] == nil {
				c.builder.remove(kind, i.key)
				changes = append(changes, Change{Kind: kind, Key: i.key, Revision: l.revision, Deleted: true})
			}
			return true
		})
	}
	for _, k := range l.order { // which trees are filled faster in
		i := l.items[k]
		if old, ok := c.builder.get(k.kind, k.key); !ok || old.revision != i.revision {
			c.builder.put(k.kind, i)
			changes = append(changes, Change{Kind: k.kind, Key: k.key, Revision: i.revision})
		}
	}
	for _, err := range l.unreadable {
		c.log.Error("a record is left as it was last known", "error", err)
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
	known := c.Revision()
	revision := known
	var changes []Change
	for _, e := range resp.Events {
		if e.Kv.ModRevision <= known {
			continue
		}
		revision = e.Kv.ModRevision
		kind, key := split(e.Kv.Key)
		if c.builder.kinds[kind] == nil {
			continue // of a newer version of dayfly
		}
		if e.Type == mvccpb.Event_DELETE {
			if c.builder.remove(kind, key) {
				changes = append(changes, Change{Kind: kind, Key: key, Revision: revision, Deleted: true})
			}
			continue
		}
		i, err := c.builder.kinds[kind].read(key, e.Kv)
		if err != nil {
			c.log.Error("a record is left as it was last known", "error", err)
			continue
		}
		c.builder.put(kind, i)
		changes = append(changes, Change{Kind: kind, Key: key, Revision: revision})
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
