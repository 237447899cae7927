package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dayfly-dev/dayfly"
)

// The events of an environment are a ring of maxEvents records, event/ENV/000 and
// on, beside event/ENV/head, which says where it goes on. The newest overwrites the
// oldest, so that nothing has to be read or counted to keep them few.
//
// The id of an event is made of the revision that wrote it and its place in that
// transaction: it grows over all servers without a counter, and a follower can go
// on from it.
const (
	maxEvents = 200
	idsPerRev = 1000
	headName  = "head"
)

// storedEvent is an event in its slot.
type storedEvent struct {
	Place int `json:"place"` // among the events of its transaction
	dayfly.Event
}

// head says where the ring goes on and who wrote it last.
type head struct {
	Next  int    `json:"next"`
	Batch string `json:"batch"` // id of the last transaction
}

func eventsOf(env string) string              { return eventPrefix + env + "/" }
func slotKey(env string, slot int) string     { return fmt.Sprintf("%s%s/%03d", eventPrefix, env, slot) }
func headKey(env string) string               { return eventsOf(env) + headName }
func isHead(kv *mvccpb.KeyValue) bool         { return strings.HasSuffix(string(kv.Key), "/"+headName) }
func byEventID(a, b dayfly.Event) int         { return cmp.Compare(a.ID, b.ID) }
func eventID(revision int64, place int) int64 { return revision*idsPerRev + int64(place) }

func readEvent(kv *mvccpb.KeyValue) (dayfly.Event, error) {
	stored, err := decode[storedEvent](strings.TrimPrefix(string(kv.Key), root), kv.Value)
	stored.Event.ID = eventID(kv.ModRevision, stored.Place)
	stored.Event.Format = dayfly.Format
	return stored.Event, err
}

// AppendEvent adds an event to an environment, by its id; the event's own ID is
// chosen here. It returns when the event is taken over: it is written a few
// milliseconds later, together with others, before Events of this server
// answers and before Close returns. While etcd is away events wait in memory, and
// when too many do, AppendEvent waits for ctx.
func AppendEvent(ctx context.Context, s *Store, env string, e dayfly.Event) error {
	if env == "" || strings.ContainsAny(env, "/\x00") {
		return dayfly.Errorf(dayfly.CodeInternal, "%q is no id of an environment", env)
	}
	return s.events.add(ctx, env, e)
}

// Events gives the last events of an environment, by its id, with an ID above after,
// oldest first; there are 200 at most.
func Events(ctx context.Context, s *Store, env string, after int64) ([]dayfly.Event, error) {
	events, _, err := readEvents(ctx, s, env, after)
	return events, err
}

func readEvents(ctx context.Context, s *Store, env string, after int64) (events []dayfly.Event, revision int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := s.events.flush(ctx); err != nil {
		return nil, 0, s.failure(ctx, err)
	}
	resp, err := s.client.Get(ctx, eventsOf(env), clientv3.WithPrefix())
	if err != nil {
		return nil, 0, s.failure(ctx, err)
	}
	events = []dayfly.Event{}
	for _, kv := range resp.Kvs {
		if isHead(kv) {
			continue
		}
		e, err := readEvent(kv)
		if err != nil {
			return nil, 0, err
		}
		if e.ID > after {
			events = append(events, e)
		}
	}
	slices.SortFunc(events, byEventID)
	return events, resp.Header.Revision, nil
}

// WatchEvents gives what Events gives, and then every new event, each once and in
// order, until ctx ends or the events are deleted. It goes on by itself when etcd was
// away; a reader more than 200 events behind misses those that are gone. An error is
// the last thing that it gives.
func WatchEvents(ctx context.Context, s *Store, env string, after int64) iter.Seq2[dayfly.Event, error] {
	return func(yield func(dayfly.Event, error) bool) {
		for {
			events, revision, err := readEvents(ctx, s, env, after)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				yield(dayfly.Event{}, err)
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
				after = e.ID
			}
			again, err := s.tailEvents(ctx, env, revision+1, &after, yield)
			if err != nil && ctx.Err() == nil {
				yield(dayfly.Event{}, err)
			}
			if !again {
				return
			}
		}
	}
}

// tailEvents gives the events from a revision on. It ends with again where the events
// must be read anew, because the revision is compacted.
func (s *Store) tailEvents(ctx context.Context, env string, from int64, after *int64, yield func(dayfly.Event, error) bool) (again bool, err error) {
	for ctx.Err() == nil {
		err = nil
		watchCtx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
		watch := s.client.Watch(watchCtx, eventsOf(env), clientv3.WithPrefix(), clientv3.WithRev(from))
		for resp := range watch {
			if err = resp.Err(); err != nil {
				break
			}
			events, deleted, err := newEvents(resp.Events, *after)
			for _, e := range events {
				if !yield(e, nil) {
					cancel()
					return false, nil
				}
				*after = e.ID
			}
			if err != nil || deleted {
				cancel()
				return false, err
			}
			if n := len(resp.Events); n > 0 {
				from = resp.Events[n-1].Kv.ModRevision + 1
			}
		}
		cancel()
		if errors.Is(err, rpctypes.ErrCompacted) {
			return true, nil
		}
		pause(ctx)
	}
	return false, nil
}

// newEvents gives those after an id, in order, until they were deleted.
func newEvents(changes []*clientv3.Event, after int64) (events []dayfly.Event, deleted bool, err error) {
	for _, change := range changes {
		switch {
		case change.Type == mvccpb.Event_DELETE:
			// All go at once; what follows is of somebody who was late.
			deleted = deleted || isHead(change.Kv)
		case !isHead(change.Kv) && !deleted:
			e, err := readEvent(change.Kv)
			if err != nil {
				return events, deleted, err
			}
			if e.ID > after {
				events = append(events, e)
			}
		}
	}
	slices.SortFunc(events, byEventID)
	return events, deleted, nil
}

// DeleteEvents removes all events of an environment, by its id, also those that this
// server has not written yet.
func DeleteEvents(ctx context.Context, s *Store, env string) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := s.events.flush(ctx); err != nil {
		return s.failure(ctx, err)
	}
	if _, err := s.client.Delete(ctx, eventsOf(env), clientv3.WithPrefix()); err != nil {
		return s.failure(ctx, err)
	}
	s.events.forget(env)
	return nil
}
