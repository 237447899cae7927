package proxy

import (
	"encoding/hex"
	"sync"
	"time"
)

const (
	// traceLife is how long a trace is remembered at least, where not too many begin: at most twice
	// that.
	traceLife = time.Minute
	// traceShards bounds how much those who remember wait for each other, traceShard how many traces
	// each part remembers per generation.
	traceShards, traceShard = 64, 2048
)

// traces remembers which environment a trace began in, so that software which hands on nothing but
// traceparent still arrives. What was begun long ago, or too many others since, is forgotten.
type traces struct {
	now    func() time.Time
	shards [traceShards]traceTable
}

// traceTable holds two generations: the older one goes as a whole.
type traceTable struct {
	mu         sync.Mutex
	turned     time.Time
	young, old map[traceID]string // "" = more than one environment has it
}

type traceID [16]byte

func newTraces(now func() time.Time) *traces { return &traces{now: now} }

// remember notes the environment of a request from outside. An id that is seen with two environments
// counts for none.
func (t *traces) remember(traceparent, environment string) {
	id, ok := traceOf(traceparent)
	if !ok {
		return
	}
	s := &t.shards[id[15]%traceShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(t.now())
	if known, ok := s.get(id); ok && known != environment {
		environment = ""
	}
	if s.young == nil {
		s.young = map[traceID]string{}
	}
	s.young[id] = environment
}

// environment gives the environment of a trace, "" = unknown.
func (t *traces) environment(traceparent string) string {
	id, ok := traceOf(traceparent)
	if !ok {
		return ""
	}
	s := &t.shards[id[15]%traceShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(t.now())
	environment, _ := s.get(id)
	return environment
}

func (s *traceTable) get(id traceID) (string, bool) {
	if environment, ok := s.young[id]; ok {
		return environment, true
	}
	environment, ok := s.old[id]
	return environment, ok
}

// turn begins another generation when it is time, or there is no room.
func (s *traceTable) turn(now time.Time) {
	age := now.Sub(s.turned)
	switch {
	case age >= 2*traceLife:
		s.young, s.old = nil, nil
	case age >= traceLife || len(s.young) >= traceShard:
		s.young, s.old = nil, s.young
	default:
		return
	}
	s.turned = now
}

// traceOf reads the trace id of a valid traceparent.
func traceOf(traceparent string) (id traceID, ok bool) {
	if !validTraceparent(traceparent) {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(traceparent[3:35]))
	return id, err == nil
}
