package demo

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// clients is how many ask at once, for each host.
const clients = 4

// load asks hosts for their front page as quickly as they answer.
type load struct {
	cancel   context.CancelFunc
	client   *http.Client
	begun    time.Time
	workers  sync.WaitGroup
	requests atomic.Int64
	failed   atomic.Int64
	firstErr atomic.Pointer[error]
}

// result is what a load came to.
type result struct {
	requests, failed int64
	duration         time.Duration
	err              error // of the first request that failed
}

func (r result) String() string {
	return fmt.Sprintf("%d requests, %d failed, %.0f requests/s", r.requests, r.failed, float64(r.requests)/r.duration.Seconds())
}

// startLoad begins to ask; stop ends it.
func startLoad(ctx context.Context, address string, hosts []string) *load {
	l := &load{begun: time.Now()}
	var running context.Context
	running, l.cancel = context.WithCancel(ctx)
	l.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients * len(hosts)}}
	for _, host := range hosts {
		for range clients {
			l.workers.Go(func() {
				for running.Err() == nil {
					// A request that has begun is let end, so that stopping fails none.
					l.count(ask(context.WithoutCancel(running), l.client, address, host))
				}
			})
		}
	}
	return l
}

func (l *load) count(err error) {
	l.requests.Add(1)
	if err != nil {
		l.failed.Add(1)
		l.firstErr.CompareAndSwap(nil, &err)
	}
}

func (l *load) stop() result {
	l.cancel()
	l.workers.Wait()
	l.client.CloseIdleConnections()
	r := result{requests: l.requests.Load(), failed: l.failed.Load(), duration: time.Since(l.begun)}
	if err := l.firstErr.Load(); err != nil {
		r.err = *err
	}
	return r
}

func ask(ctx context.Context, client *http.Client, address, host string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return err
	}
	req.Host = host
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", host, resp.Status)
	}
	return nil
}
