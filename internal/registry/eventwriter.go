package registry

import (
	"context"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dayfly-dev/dayfly"
)

const (
	// linger is how long an event waits for others to be written with it.
	linger = 3 * time.Millisecond
	// maxBatch keeps a transaction below what etcd takes (128 operations by
	// default): an event is one, and each environment's head is another.
	maxBatch = 60
	// maxWaiting is how many events wait in memory while etcd is away.
	maxWaiting = 10_000
)

// queued is an event that is not written yet.
type queued struct {
	env   string
	event dayfly.Event
}

// place is where the ring of an environment goes on.
type place struct {
	next     int
	revision int64 // of the head; 0 = there is none
}

// eventWriter writes events in the order in which they come, several at once.
type eventWriter struct {
	store *Store

	mu       sync.Mutex
	waiting  []queued
	written  int64         // how many have been written or given up, ever
	added    int64         // how many have been added, ever
	progress chan struct{} // closed and replaced when written grows
	closed   bool

	wake    chan struct{} // something to write
	hurry   chan struct{} // somebody waits for it
	stop    context.CancelFunc
	running sync.WaitGroup

	placeMu sync.Mutex
	places  map[string]place // as far as known; a wrong one costs one more round trip
}

func startEventWriter(s *Store) *eventWriter {
	ctx, cancel := context.WithCancel(context.Background())
	w := &eventWriter{
		store: s, progress: make(chan struct{}), wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1),
		stop: cancel, places: map[string]place{},
	}
	w.running.Go(func() { w.run(ctx) })
	return w
}

var errClosed = dayfly.Errorf(dayfly.CodeUnavailable, "the server is stopping")

func (w *eventWriter) add(ctx context.Context, env string, e dayfly.Event) error {
	for {
		w.mu.Lock()
		if w.closed {
			w.mu.Unlock()
			return errClosed
		}
		if len(w.waiting) < maxWaiting {
			w.waiting = append(w.waiting, queued{env, e})
			w.added++
			w.mu.Unlock()
			signal(w.wake)
			return nil
		}
		progress := w.progress
		w.mu.Unlock()
		select {
		case <-progress:
		case <-ctx.Done():
			return w.store.failure(ctx, ctx.Err())
		}
	}
}

// flush returns when all that has been added by now is written.
func (w *eventWriter) flush(ctx context.Context) error {
	w.mu.Lock()
	until := w.added
	w.mu.Unlock()
	for {
		w.mu.Lock()
		done, progress := w.written >= until, w.progress
		w.mu.Unlock()
		if done {
			return nil
		}
		signal(w.hurry)
		select {
		case <-progress:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// close writes what waits, if etcd takes it within the time-out, and ends the writer.
func (w *eventWriter) close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), w.store.timeout)
	defer cancel()
	err := w.flush(ctx)
	w.stop()
	w.running.Wait()
	if err != nil {
		return dayfly.Errorf(dayfly.CodeUnavailable, "etcd does not answer: %d events could not be written", len(w.waiting))
	}
	return nil
}

// forget drops what is known of an environment that is gone.
func (w *eventWriter) forget(env string) {
	w.placeMu.Lock()
	defer w.placeMu.Unlock()
	delete(w.places, env)
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (w *eventWriter) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		}
		w.gather(ctx)
		for batch := w.batch(); len(batch) > 0; batch = w.batch() {
			if err := w.write(ctx, batch); err != nil {
				return // ctx has ended
			}
			w.wrote(len(batch))
		}
	}
}

// gather waits for others to come, unless somebody waits for what is there.
func (w *eventWriter) gather(ctx context.Context) {
	t := time.NewTimer(linger)
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.hurry:
	case <-ctx.Done():
	}
}

func (w *eventWriter) batch() []queued {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waiting[:min(len(w.waiting), maxBatch)]
}

func (w *eventWriter) wrote(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = w.waiting[n:]
	w.written += int64(n)
	if len(w.waiting) == 0 {
		w.waiting = nil // lets go of the array
	}
	close(w.progress)
	w.progress = make(chan struct{})
}

// write writes events in one transaction and tries until it has succeeded; what it
// cannot write at all it logs and leaves out.
func (w *eventWriter) write(ctx context.Context, batch []queued) error {
	id := dayfly.NewID()
	for ctx.Err() == nil {
		txn, envs, err := w.transaction(id, batch)
		if err != nil {
			w.store.log.Error("events could not be written", "count", len(batch), "error", err)
			return nil
		}
		resp, err := w.try(ctx, txn)
		switch {
		case err == nil && w.learn(id, envs, resp):
			return nil
		case err == nil:
			// Known better now where the rings go on.
		case dayfly.ErrorCode(err) == dayfly.CodeUnavailable:
			pause(ctx)
		case ctx.Err() == nil:
			w.store.log.Error("events could not be written", "count", len(batch), "error", err)
			return nil
		}
	}
	return ctx.Err()
}

func (w *eventWriter) try(ctx context.Context, txn transaction) (*clientv3.TxnResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, w.store.timeout)
	defer cancel()
	resp, err := txn(ctx)
	if err != nil {
		return nil, w.store.failure(ctx, err)
	}
	return resp, nil
}

type transaction func(context.Context) (*clientv3.TxnResponse, error)

// transaction makes what writes events where their rings go on, provided that they
// are where they are thought to be; if not it reads where they are.
func (w *eventWriter) transaction(id string, batch []queued) (run transaction, envs map[string]place, err error) {
	w.placeMu.Lock()
	defer w.placeMu.Unlock()
	after := map[string]place{}
	var compares []clientv3.Cmp
	var puts, reads []clientv3.Op
	for i, q := range batch {
		p, seen := after[q.env]
		if !seen {
			p = w.places[q.env]
			compares = append(compares, clientv3.Compare(clientv3.ModRevision(headKey(q.env)), "=", p.revision))
			reads = append(reads, clientv3.OpGet(headKey(q.env)))
		}
		data, err := encode(storedEvent{Place: i, Event: q.event})
		if err != nil {
			return nil, nil, err
		}
		puts = append(puts, clientv3.OpPut(slotKey(q.env, p.next), string(data)))
		p.next = (p.next + 1) % maxEvents
		after[q.env] = p
	}
	for env, p := range after {
		data, err := encode(head{Next: p.next, Batch: id})
		if err != nil {
			return nil, nil, err
		}
		puts = append(puts, clientv3.OpPut(headKey(env), string(data)))
	}
	return func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return w.store.client.Txn(ctx).If(compares...).Then(puts...).Else(reads...).Commit()
	}, after, nil
}

// learn takes in where the rings are after a transaction, and says whether the events
// are written: by it, or by an earlier try whose answer was lost.
func (w *eventWriter) learn(id string, envs map[string]place, resp *clientv3.TxnResponse) bool {
	w.placeMu.Lock()
	defer w.placeMu.Unlock()
	if resp.Succeeded {
		for env, p := range envs {
			w.places[env] = place{next: p.next, revision: resp.Header.Revision}
		}
		return true
	}
	for env := range envs {
		delete(w.places, env) // there is none, unless it is among the answers
	}
	written := false
	for _, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().Kvs {
			env := string(kv.Key[len(eventPrefix) : len(kv.Key)-len("/"+headName)])
			h, err := decode[head](headKey(env), kv.Value)
			if err != nil {
				w.store.log.Error("the events of an environment begin anew", "error", err)
			}
			w.places[env] = place{next: h.Next % maxEvents, revision: kv.ModRevision}
			written = written || h.Batch == id
		}
	}
	return written
}
