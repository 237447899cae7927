package route

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// instance is one address that requests can be sent to. Its count of requests
// and whether it takes any are one word, which is what makes draining exact: who
// counts himself in learns in the same step whether he was still allowed to, so
// whoever has set a bit knows that all who got in before are in the count and
// that nobody gets in afterwards.
type instance struct {
	state atomic.Int64  // requests in flight, draining, absent
	total atomic.Uint64 // requests ever
	eject atomic.Int64  // see ejection

	id, address string
	cut         chan struct{} // closed by cutOff

	mu   sync.Mutex
	idle chan struct{} // closed and nil again when the last request of a draining instance ends; nil = nobody waits

	isCut, forgotten bool // guarded by Table.mu

	_ [32]byte // to 128 bytes: neighbours in memory share no cache line
}

const (
	draining int64 = 1 << 62 // takes no more requests, for ever
	absent   int64 = 1 << 61 // not among the current instances of its deployment
	closed         = draining | absent
	counted        = absent - 1
)

func newInstance(e Endpoint) *instance {
	return &instance{id: e.Instance, address: e.Address, cut: make(chan struct{})}
}

func (i *instance) inFlight() int  { return int(i.state.Load() & counted) }
func (i *instance) draining() bool { return i.state.Load()&draining != 0 }
func (i *instance) open() bool     { return i.state.Load()&closed == 0 }

// enter counts a request in, unless the instance takes none.
func (i *instance) enter() bool {
	if i.state.Add(1)&closed != 0 {
		i.leave()
		return false
	}
	i.total.Add(1)
	return true
}

// leave counts a request out.
func (i *instance) leave() {
	if s := i.state.Add(-1); s&draining == 0 || s&counted != 0 {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.idle != nil {
		close(i.idle)
		i.idle = nil
	}
}

// wait returns when no request is on a draining instance or ctx ends.
func (i *instance) wait(ctx context.Context) error {
	i.mu.Lock()
	if i.inFlight() == 0 {
		i.mu.Unlock()
		return nil
	}
	if i.idle == nil {
		i.idle = make(chan struct{})
	}
	idle := i.idle
	i.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// cutOff tells those who have a claim to end.
func (i *instance) cutOff() {
	if !i.isCut {
		i.isCut = true
		close(i.cut)
	}
}

// ejection says until when an instance is left alone after a connection error:
// nanoseconds since the table's epoch, whose lowest bits are how often in a row
// it was ejected before. 0 = not ejected. One whose time is over may be tried by
// one request at a time: who gets to replace the value by the next one has it.
type ejection int64

const (
	ejectFirst = 100 * time.Millisecond
	ejectMost  = 10 * time.Second
	levelBits  = 4
	levelMask  = 1<<levelBits - 1
)

// ejected gives an ejection that begins now.
func ejected(now int64, level int64) ejection {
	level = min(level, levelMask)
	delay := min(ejectFirst<<level, ejectMost)
	return ejection((now+int64(delay))&^levelMask | level)
}

func (e ejection) over(now int64) bool { return int64(e)&^levelMask <= now }
func (e ejection) level() int64        { return int64(e) & levelMask }
