package route

import "math/bits"

// Tried remembers the instances that one request was given, so that it gets
// another one each time. The zero value is empty.
type Tried struct {
	n    int
	list [8]*instance
}

func (t *Tried) has(i *instance) bool {
	if t == nil {
		return false
	}
	for _, other := range t.list[:t.n] {
		if other == i {
			return true
		}
	}
	return false
}

// Claim is a request's place on an instance. It must be given back with Done;
// copies of a Claim are one claim.
type Claim struct {
	table      *Table
	deployment *deployment
	instance   *instance
	version    string
	// mark is the ejection that this request may end if it gets through:
	// positive for the one that was let through to try, negative where no
	// instance was left that is not ejected.
	mark ejection
	done bool
}

// Address gives where to send the request, host:port.
func (c *Claim) Address() string { return c.instance.address }

// Instance gives the id of the instance.
func (c *Claim) Instance() string { return c.instance.id }

// Deployment gives the id of the deployment.
func (c *Claim) Deployment() string { return c.deployment.id }

// Version gives the version of the target, as in Target.Version.
func (c *Claim) Version() string { return c.version }

// Cut gives a channel that is closed when the instance is being cut off and the
// request should end.
func (c *Claim) Cut() <-chan struct{} { return c.instance.cut }

// Alive says that the instance took the connection. It ends an ejection at once
// and matters where a request lasts long; Done(false) does the same.
func (c *Claim) Alive() {
	switch {
	case c.mark > 0:
		c.instance.eject.CompareAndSwap(int64(c.mark), 0)
	case c.mark < 0:
		c.instance.eject.CompareAndSwap(-int64(c.mark), 0)
	}
}

// Done gives the claim back; it must be called when the request has ended, in
// whatever way. Further calls do nothing. failed says that the instance could
// not be reached: it is left alone for 100 ms, and twice as long each time that
// it then fails again, up to 10 s.
func (c *Claim) Done(failed bool) {
	if c.done || c.instance == nil {
		return
	}
	c.done = true
	if failed {
		c.failed()
	} else {
		c.Alive()
	}
	c.instance.leave()
}

// failed ejects the instance. Of many requests that fail at once only one does:
// the others find it ejected already.
func (c *Claim) failed() {
	e := &c.instance.eject
	now := c.table.clock()
	if c.mark > 0 && e.CompareAndSwap(int64(c.mark), int64(ejected(now, c.mark.level()+1))) {
		return
	}
	e.CompareAndSwap(0, int64(ejected(now, 0)))
}

// clock gives nanoseconds since the table was made.
func (t *Table) clock() int64 { return int64(t.now().Sub(t.epoch)) }

// Claim takes a place on an instance of the service. The deployment is chosen at
// random by weight, so that no state is shared between requests; of two random
// instances of it the one with fewer requests in flight is taken. Left out are
// instances that drain, are ejected or were tried; a deployment without any other
// yields to the next one; where all are ejected, the one whose time is over
// first is taken.
//
// choose names a version and takes precedence over weights while that has an
// instance in rotation; see Match.Choose. tried may be nil; otherwise the
// instance is added to it. False = there is none, or too many were tried. Claim
// does not allocate.
func (m Match) Claim(choose string, tried *Tried) (Claim, bool) {
	if tried != nil && tried.n == len(tried.list) {
		return Claim{}, false
	}
	if !m.Choose() {
		choose = ""
	}
	// What was looked up may have been replaced and drained meanwhile: look
	// again before giving up. Three times is plenty, as each is a change of
	// the environment between two steps of this request.
	s := m.service
	for range 3 {
		if s == nil {
			break
		}
		if c, ok := m.table.claim(s, choose, tried); ok {
			if tried != nil {
				tried.list[tried.n] = c.instance
				tried.n++
			}
			return c, true
		}
		before := s
		if s = m.again(); s == before {
			break
		}
	}
	return Claim{}, false
}

// again gives the service as it is now.
func (m Match) again() *service {
	state := m.table.state.Load()
	env := state.named(m.Environment)
	if env == nil || m.public && env.deleting {
		return nil
	}
	var buf [maxName]byte
	_, s := state.provider(env, fold(&buf, m.Service))
	return s
}

func (t *Table) claim(s *service, choose string, tried *Tried) (Claim, bool) {
	if choose != "" {
		for i := range s.targets {
			if to := &s.targets[i]; to.version == choose && to.deployment.inRotation() {
				return t.claimOf(s.targets[i:i+1], 0, true, tried)
			}
		}
	}
	if s.weight == 0 {
		return Claim{}, false
	}
	first := 0
	for point := t.below(s.weight); point >= s.targets[first].weight; first++ {
		point -= s.targets[first].weight
	}
	return t.claimOf(s.targets, first, false, tried)
}

// claimOf claims an instance of one of the targets, beginning at first; those
// without weight only if asked to.
func (t *Table) claimOf(targets []target, first int, weightless bool, tried *Tried) (Claim, bool) {
	for _, desperate := range [...]bool{false, true} {
		for n := range targets {
			to := &targets[(first+n)%len(targets)]
			if to.weight == 0 && !weightless {
				continue
			}
			for {
				i, mark := t.pick(to.deployment.instances(), tried, desperate)
				if i == nil {
					break
				}
				if i.enter() {
					return Claim{t, to.deployment, i, to.version, mark, false}, true
				}
			}
		}
	}
	return Claim{}, false
}

func (t *Table) pick(list []*instance, tried *Tried, desperate bool) (*instance, ejection) {
	if desperate {
		return leastBad(list, tried)
	}
	return t.pickGood(list, tried)
}

// inRotation says whether some instance takes requests, ejected or not.
func (d *deployment) inRotation() bool {
	for _, i := range d.instances() {
		if i.open() {
			return true
		}
	}
	return false
}

// pickGood gives the less busy of two random instances that are open, not tried
// and not ejected. One whose ejection is over may come with a mark: the caller
// is the one to try it.
func (t *Table) pickGood(list []*instance, tried *Tried) (*instance, ejection) {
	clock := clock{table: t}
	for {
		i := t.lessBusy(list, tried, &clock)
		if i == nil {
			return nil, 0
		}
		e := ejection(i.eject.Load())
		if e == 0 {
			return i, 0
		}
		next := ejected(clock.now(), e.level())
		if e.over(clock.now()) && i.eject.CompareAndSwap(int64(e), int64(next)) {
			return i, next
		}
	}
}

func (t *Table) lessBusy(list []*instance, tried *Tried, clock *clock) *instance {
	if len(list) == 0 {
		return nil
	}
	a, b := t.two(len(list))
	one, other := list[a], list[b]
	if !one.good(tried, clock) || !other.good(tried, clock) {
		// Not both are good, so choose among those that are.
		n := 0
		for _, i := range list {
			if i.good(tried, clock) {
				n++
			}
		}
		if n == 0 {
			return nil
		}
		a, b = t.two(n)
		one, other = nil, nil
		n = 0
		for _, i := range list {
			if !i.good(tried, clock) {
				continue
			}
			if n == a {
				one = i
			}
			if n == b {
				other = i
			}
			n++
		}
		if one == nil || other == nil { // fewer than a moment ago
			return t.lessBusy(list, tried, clock)
		}
	}
	if other.inFlight() < one.inFlight() {
		return other
	}
	return one
}

func (i *instance) good(tried *Tried, c *clock) bool {
	if !i.open() || tried.has(i) {
		return false
	}
	e := ejection(i.eject.Load())
	return e == 0 || e.over(c.now())
}

// leastBad gives the open instance, not tried, whose ejection is over first.
func leastBad(list []*instance, tried *Tried) (best *instance, mark ejection) {
	for _, i := range list {
		if !i.open() || tried.has(i) {
			continue
		}
		if e := ejection(i.eject.Load()); best == nil || e < -mark {
			best, mark = i, -e
		}
	}
	return best, mark
}

// clock reads the time when it is first asked for, which is seldom: while no
// instance is ejected nobody asks.
type clock struct {
	table *Table
	read  bool
	value int64
}

func (c *clock) now() int64 {
	if !c.read {
		c.read, c.value = true, c.table.clock()
	}
	return c.value
}

// two gives two different numbers below n, the same one twice if n is 1.
func (t *Table) two(n int) (int, int) {
	if n == 1 {
		return 0, 0
	}
	a := int(t.below(uint64(n)))
	b := int(t.below(uint64(n - 1)))
	if b >= a {
		b++
	}
	return a, b
}

// below gives a random number below n.
func (t *Table) below(n uint64) uint64 {
	high, _ := bits.Mul64(t.rand(), n)
	return high
}
