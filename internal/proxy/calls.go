package proxy

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/route"
)

const (
	// maxRows bounds how many services of environments, and pairs of them, are counted.
	maxRows = 1 << 14
	// callShards bounds how much those who count wait for each other.
	callShards = 64
	// suspects bounds how many services are named of which one made a call.
	suspects = 3
	// mostSuspects bounds how many services of environments are looked at for that.
	mostSuspects = 64
)

// carried is what told for whom a call is. Beside route.By it tells a header from baggage.
type carried uint8

const (
	byHeader carried = iota
	byBaggage
	byHost
	byTrace
	bySource
	byAddress
	byBaseline
	ways
)

// calls counts who calls whom and what the calls carry. Who calls is said nowhere: it is whose address
// the caller has, or else who is being asked something by the same environment at that moment. A call that
// carries nothing is for whomever its callers are being asked, if that is one environment.
type calls struct {
	now    func() time.Time
	seed   maphash.Seed
	rows   atomic.Int64
	shards [callShards]callShard

	mu       sync.RWMutex // guards the rest
	projects map[string]*asked
	since    time.Time
}

// callShard has the rows of some environments.
type callShard struct {
	mu     sync.Mutex
	served map[string][]*served // by the id of the environment
	pairs  map[pairKey]*pair
}

// served is a service as an environment has it.
type served struct {
	env, service string // env is an id
	// home is the environment whose variables it has: where it calls when it says nothing. "" = it is of
	// several environments.
	home     string
	requests atomic.Uint64
	inFlight atomic.Int64
	used     atomic.Bool // since room was made
	asked    *asked      // of its project
}

// asked are the services of a project that are being asked something.
type asked struct {
	mu   sync.Mutex
	busy map[*served]int
}

type pairKey struct {
	env     string // id; "" = cannot be told
	project string
	from    [suspects]string
	to      string
	went    string // name
}

type pair struct {
	counts [ways]atomic.Uint64
	used   atomic.Bool
}

func newCalls(now func() time.Time) *calls {
	return &calls{now: now, seed: maphash.MakeSeed(), since: now(), projects: map[string]*asked{}}
}

func (c *calls) shard(env string) *callShard {
	return &c.shards[maphash.String(c.seed, env)%callShards]
}

// use notes that something is worth its room, without writing where that is known.
func use(used *atomic.Bool) {
	if !used.Load() {
		used.Store(true)
	}
}

// begin counts a request that is passed on. Its end has to be told with what begin gives. long says that
// it may last for long after it was answered.
func (c *calls) begin(m route.Match, told carried, from route.Source, long bool) *served {
	s := c.serving(m)
	use(&s.used)
	if !m.FromOutside() {
		c.count(s, m, told, from)
	}
	s.requests.Add(1)
	if long {
		return nil
	}
	s.inFlight.Add(1)
	s.asked.mu.Lock()
	s.asked.busy[s]++
	s.asked.mu.Unlock()
	return s
}

// ended says that a request has its answer.
func (s *served) ended() {
	if s == nil {
		return
	}
	s.inFlight.Add(-1)
	s.asked.mu.Lock()
	defer s.asked.mu.Unlock()
	if s.asked.busy[s]--; s.asked.busy[s] == 0 {
		delete(s.asked.busy, s)
	}
}

// serving gives the row of the service that a request is for.
func (c *calls) serving(m route.Match) *served {
	env, home := m.EnvironmentID(), m.Provider
	if m.Pooled() {
		home = ""
	}
	shard := c.shard(env)
	shard.mu.Lock()
	for _, s := range shard.served[env] {
		if s.service == m.Service && s.home == home {
			shard.mu.Unlock()
			return s
		}
	}
	shard.mu.Unlock()

	s := &served{env: env, service: m.Service, home: home, asked: c.project(m.Project)}
	c.makeRoom()
	shard.mu.Lock()
	defer shard.mu.Unlock()
	for _, other := range shard.served[env] {
		if other.service == s.service && other.home == home {
			return other
		}
	}
	if shard.served == nil {
		shard.served = map[string][]*served{}
	}
	shard.served[env] = append(shard.served[env], s)
	c.rows.Add(1)
	return s
}

func (c *calls) project(name string) *asked {
	c.mu.RLock()
	a := c.projects[name]
	c.mu.RUnlock()
	if a != nil {
		return a
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if a = c.projects[name]; a == nil {
		a = &asked{busy: map[*served]int{}}
		c.projects[name] = a
	}
	return a
}

// count counts a call from inside to a service.
func (c *calls) count(to *served, m route.Match, told carried, from route.Source) {
	key := pairKey{env: to.env, project: m.Project, to: m.Service, went: m.Environment}
	switch {
	case from.Service != "":
		key.from[0] = from.Service
	case told == byAddress:
		to.asked.suspect(&key, m.Environment)
	case told == byBaseline:
		to.asked.suspect(&key, "")
	default:
		key.from = c.callers(to.env)
	}
	shard := c.shard(key.env)
	shard.mu.Lock()
	p := shard.pairs[key]
	shard.mu.Unlock()
	if p == nil {
		c.makeRoom()
		shard.mu.Lock()
		if shard.pairs == nil {
			shard.pairs = map[pairKey]*pair{}
		}
		if p = shard.pairs[key]; p == nil {
			p = &pair{}
			shard.pairs[key] = p
			c.rows.Add(1)
		}
		shard.mu.Unlock()
	}
	use(&p.used)
	p.counts[told].Add(1)
}

// suspect finds by whom a call was made that carries nothing, and for whom: by who has the variables of an
// environment, "" = any, and is being asked something. Where they are asked for several environments it
// cannot be told for whom; where nobody is asked it was made by itself.
func (a *asked) suspect(key *pairKey, home string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var names services
	env, several, looked := "", false, 0
	for s := range a.busy {
		if home != "" && s.home != "" && s.home != home {
			continue
		}
		names.add(s.service)
		several = several || env != "" && env != s.env
		env = s.env
		if looked++; looked == mostSuspects {
			names, several = services{}, true
			break
		}
	}
	switch {
	case several:
		key.env, key.from = "", names.sorted()
	case env != "":
		key.env, key.from = env, names.sorted()
	}
}

// callers gives those who are being asked something by an environment.
func (c *calls) callers(env string) [suspects]string {
	var names services
	shard := c.shard(env)
	shard.mu.Lock()
	defer shard.mu.Unlock()
	for _, s := range shard.served[env] {
		if s.inFlight.Load() > 0 {
			names.add(s.service)
		}
	}
	return names.sorted()
}

// services are a few names.
type services struct {
	list [suspects]string
	n    int
}

func (s *services) add(name string) {
	if slices.Contains(s.list[:min(s.n, suspects)], name) {
		return
	}
	if s.n < suspects {
		s.list[s.n] = name
	}
	s.n++
}

// sorted gives the names in order; none where there are too many of them to say anything.
func (s *services) sorted() [suspects]string {
	if s.n > suspects {
		return [suspects]string{}
	}
	slices.Sort(s.list[:s.n])
	return s.list
}

// makeRoom forgets what was not used since it made room the last time, and everything where that is not
// much. Whatever is forgotten, what is left counts from the beginning.
func (c *calls) makeRoom() {
	if c.rows.Load() < maxRows {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rows.Load() < maxRows { // somebody else did
		return
	}
	kept := c.forget(func(used *atomic.Bool) bool { return !used.Swap(false) })
	if kept > maxRows/2 {
		kept = c.forget(func(*atomic.Bool) bool { return true })
		c.since = c.now()
	}
	c.rows.Store(int64(kept))
}

// forget takes rows out and says how many are left.
func (c *calls) forget(gone func(used *atomic.Bool) bool) (kept int) {
	for i := range c.shards {
		shard := &c.shards[i]
		shard.mu.Lock()
		for env, list := range shard.served {
			left := slices.DeleteFunc(slices.Clone(list), func(s *served) bool { return gone(&s.used) })
			if kept += len(left); len(left) > 0 {
				shard.served[env] = left
			} else {
				delete(shard.served, env)
			}
		}
		for key, p := range shard.pairs {
			if gone(&p.used) {
				delete(shard.pairs, key)
			} else {
				kept++
			}
		}
		shard.mu.Unlock()
	}
	return kept
}

// Counts gives what was counted of the requests that were passed on.
func (p *Proxy) Counts() dayfly.CallCounts {
	c := p.calls
	c.mu.RLock()
	counts := dayfly.CallCounts{Since: c.since}
	c.mu.RUnlock()
	for i := range c.shards {
		shard := &c.shards[i]
		shard.mu.Lock()
		for _, list := range shard.served {
			for _, s := range list {
				counts.Served = append(counts.Served, dayfly.ServedCount{EnvironmentID: s.env, Service: s.service, Requests: s.requests.Load()})
			}
		}
		for k, p := range shard.pairs {
			counts.Calls = append(counts.Calls, k.counted(p))
		}
		shard.mu.Unlock()
	}
	return counts
}

func (k pairKey) counted(p *pair) dayfly.CallCount {
	n := func(w carried) uint64 { return p.counts[w].Load() }
	return dayfly.CallCount{
		EnvironmentID: k.env, Project: k.project, To: k.to, Went: k.went,
		From: slices.DeleteFunc(slices.Clone(k.from[:]), func(s string) bool { return s == "" }),
		Carried: dayfly.Carried{
			Header: n(byHeader), Baggage: n(byBaggage), Host: n(byHost), Trace: n(byTrace),
			Source: n(bySource), Address: n(byAddress), Baseline: n(byBaseline),
		},
	}
}
