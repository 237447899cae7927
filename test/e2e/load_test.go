package e2e

import (
	"fmt"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// load is a number of clients that ask one address, each request on a connection of its own.
type load struct {
	stop     chan struct{}
	clients  sync.WaitGroup
	mu       sync.Mutex
	requests int
	failures []failure
}

type failure struct {
	begun, ended time.Time
	what         string
}

// cmdLoad asks URL with several clients until unload: load URL.
func cmdLoad(ts *testscript.TestScript, _ bool, args []string) {
	l := &load{stop: make(chan struct{})}
	theServer(ts).load = l
	for range 4 {
		l.clients.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
					l.ask(args)
				}
			}
		})
	}
	ts.Defer(l.end)
}

func (l *load) ask(args []string) {
	begun := time.Now()
	status, text, err := fetch(args)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	if err != nil || status != 200 {
		l.failures = append(l.failures, failure{begun, time.Now(), fmt.Sprintf("%d %v %s", status, err, text)})
	}
}

// end stops the clients and waits for them.
func (l *load) end() {
	l.mu.Lock()
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.mu.Unlock()
	l.clients.Wait()
}

// cmdUnload stops the clients; it fails if a request failed that was not in flight while the
// server was killed.
func cmdUnload(ts *testscript.TestScript, _ bool, _ []string) {
	s := theServer(ts)
	s.load.end()
	for _, f := range s.load.failures {
		excused := false
		for _, end := range s.ends {
			excused = excused || f.begun.Before(end[1]) && f.ended.After(end[0])
		}
		if !excused {
			ts.Fatalf("a request failed: %s", f.what)
		}
	}
	if s.load.requests < 20 {
		ts.Fatalf("only %d requests", s.load.requests)
	}
	fmt.Fprintf(ts.Stdout(), "%d requests, %d of them in flight when the server was killed\n", s.load.requests, len(s.load.failures))
}
