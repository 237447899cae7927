package reconcile

import (
	"sync"
	"time"
)

// retries says when work that has failed is tried again: after a while that doubles with each
// failure, and at once when what is wanted has changed. What a worker's own back-off counts are
// passes, and a pass that only begins the work is a good one: it would start over with each try.
type retries struct {
	first, last time.Duration
	now         func() time.Time

	mu   sync.Mutex
	byID map[string]retry
}

// retry is when something that has failed is tried again.
type retry struct {
	revision int64 // of what was wanted
	failures int
	at       time.Time
	problem  string // of the last try
}

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 30 * time.Second
)

func newRetries() *retries {
	return &retries{first: firstRetry, last: lastRetry, now: time.Now, byID: map[string]retry{}}
}

// failed notes a failure and gives the time until the next try.
func (r *retries) failed(id string, revision int64, problem error) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.byID[id]
	if was.revision != revision {
		was = retry{revision: revision}
	}
	wait := r.last
	if was.failures < 16 { // further on a shift might leave nothing
		wait = min(r.last, r.first<<was.failures)
	}
	was.failures, was.at, was.problem = was.failures+1, r.now().Add(wait), problem.Error()
	r.byID[id] = was
	return wait
}

// wait says how long something that has failed is still left alone; 0 = it may be tried.
func (r *retries) wait(id string, revision int64) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	was, ok := r.byID[id]
	if !ok || was.revision != revision {
		return 0
	}
	return max(0, was.at.Sub(r.now()))
}

// problem says why the last try of something failed; "" = it has not been tried, or was done.
func (r *retries) problem(id string, revision int64) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was := r.byID[id]; was.revision == revision {
		return was.problem
	}
	return ""
}

// done forgets the failures of what was done, or is not wanted any more.
func (r *retries) done(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byID, id)
}
