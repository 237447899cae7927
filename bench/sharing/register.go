package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dayfly-dev/dayfly/bench/lab"
)

// instances gives the processes of a version of a service that is shared.
func (w *world) instances(service, version string) (pids []int, err error) {
	status, text, err := w.Call(http.MethodGet, "/v1/services/"+service+"/instances", nil)
	if err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("instances of %s: %d %w", service, status, err)
	}
	var list struct {
		Items []struct {
			PID     int    `json:"pid"`
			Version string `json:"version"`
			Phase   string `json:"phase"`
			Address string `json:"address"`
		} `json:"items"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	commit, err := w.commitOf(version)
	for _, i := range list.Items {
		if i.Version == commit && i.Phase == "healthy" && i.PID > 0 {
			pids = append(pids, i.PID)
		}
	}
	return pids, err
}

// client keeps connections to the API.
func client() (*http.Client, func()) {
	t := &http.Transport{MaxIdleConnsPerHost: 32}
	return &http.Client{Transport: t}, t.CloseIdleConnections
}

// register registers or renews an instance.
func (w *world) register(c *http.Client, service, id string, body map[string]string) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPut, w.API+"/v1/services/"+service+"/instances/"+id, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("registering %s %s: %d %s", service, id, resp.StatusCode, text)
	}
	return err
}

// registrations registers many instances, a hundred of each service, and renews them at their pace.
func registrations(o options, few, many *world) error {
	sizes := map[*world]int{few: o.registrations / 100, many: o.registrations}
	c, closeAll := client()
	defer closeAll()
	renew := func(w *world, i int) error {
		return w.register(c, fmt.Sprintf("elsewhere-%03d", i/100), fmt.Sprint("i", i), map[string]string{
			"version": "1", "address": fmt.Sprintf("10.%d.%d.%d:80", i>>16, i>>8&255, i&255), "project": "shop", "ttl": o.ttl.String(),
		})
	}
	// each does something for every registration, within a time, in as even a pace as it can.
	each := func(w *world, within time.Duration) error {
		n := sizes[w]
		begun := time.Now()
		var at atomic.Int64
		_, err := parallel(16, begun.Add(10*time.Minute), func(int, int) error {
			i := int(at.Add(1)) - 1
			if i >= n {
				return errDone
			}
			time.Sleep(time.Until(begun.Add(within * time.Duration(i) / time.Duration(n)))) // their pace
			return renew(w, i)
		})
		if errors.Is(err, errDone) {
			err = nil
		}
		return err
	}
	for _, w := range []*world{few, many} {
		before, cpu, begun := lab.Resident(w.PID()), lab.CPU(w.PID()), time.Now()
		if err := each(w, 0); err != nil {
			return err
		}
		took := time.Since(begun)
		registered := lab.CPU(w.PID()) - cpu
		w.settle() // the longest pause that the first ones are given
		n := sizes[w]
		cpu, begun = lab.CPU(w.PID()), time.Now()
		time.Sleep(10 * time.Second) // this is what is measured
		rest := (lab.CPU(w.PID()) - cpu).Seconds() / time.Since(begun).Seconds()
		cpu, begun = lab.CPU(w.PID()), time.Now()
		for range 2 {
			if err := each(w, o.ttl/3); err != nil {
				return err
			}
		}
		used, passed := lab.CPU(w.PID())-cpu, time.Since(begun)
		each := used - time.Duration(rest*float64(passed))
		fmt.Printf("%6d registrations: registered in %v (CPU %v each); renewed every %v: CPU of the server %.1f %% of a core (%.1f %% at rest), %v for each renewal; resident %.1f KiB more for each\n",
			n, took.Round(time.Millisecond), (registered / time.Duration(n)).Round(time.Microsecond), (passed / 2).Round(time.Second), 100*used.Seconds()/passed.Seconds(), 100*rest,
			(each / time.Duration(2*n)).Round(time.Microsecond), float64(lab.Resident(w.PID())-before)/1024/float64(n))
	}
	return nil
}

var errDone = errors.New("all is done")

// target is an instance that registers itself and notes when it was last asked.
type target struct {
	address string
	last    atomic.Int64
	end     func()
}

func newTarget() (*target, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &target{address: l.Addr().String()}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.last.Store(time.Now().UnixNano())
		_, _ = io.WriteString(w, "elsewhere-mine ")
	})}
	go func() { _ = s.Serve(l) }()
	t.end = func() { _ = s.Close() }
	return t, nil
}

// deaths measures how long requests are sent to an instance that is no more: one whose lease runs out,
// one that is deregistered, and one whose process is killed while another one is there.
func deaths(w *world) error {
	const service, env, ttl = "late", "nowhere", 2 * time.Second
	c, closeAll := client()
	defer closeAll()
	one, err := newTarget()
	if err != nil {
		return err
	}
	defer one.end()
	two, err := newTarget()
	if err != nil {
		return err
	}
	defer two.end()
	body := func(t *target, ttl time.Duration) map[string]string {
		return map[string]string{"version": "1", "address": t.address, "project": "shop", "env": env, "ttl": ttl.String()}
	}
	if err := w.register(c, service, "two", body(two, time.Hour)); err != nil {
		return err
	}
	var stop atomic.Bool
	var asked, wrong atomic.Int64
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for !stop.Load() {
				status, _, err := w.Ask(service + "-" + env)
				asked.Add(1)
				if err != nil || status != http.StatusOK {
					wrong.Add(1)
				}
			}
		})
	}
	var expired, left []time.Duration
	for range 5 {
		if err := w.register(c, service, "one", body(one, ttl)); err != nil {
			return err
		}
		begun := time.Now() // the lease began before
		if err := one.asked(begun); err != nil {
			return err
		}
		if err := one.gone(); err != nil {
			return err
		}
		expired = append(expired, time.Unix(0, one.last.Load()).Sub(begun.Add(ttl)))

		if err := w.register(c, service, "one", body(one, time.Hour)); err != nil {
			return err
		}
		if err := one.asked(time.Now()); err != nil {
			return err
		}
		begun = time.Now()
		if err := w.call(http.MethodDelete, "/v1/services/"+service+"/instances/one", nil); err != nil {
			return err
		}
		if err := one.gone(); err != nil {
			return err
		}
		left = append(left, time.Unix(0, one.last.Load()).Sub(begun))
	}
	before := wrong.Load()
	if err := w.register(c, service, "one", body(one, time.Hour)); err != nil {
		return err
	}
	if err := one.asked(time.Now()); err != nil {
		return err
	}
	asking := asked.Load()
	one.end()
	time.Sleep(5 * time.Second) // requests go on
	stop.Store(true)
	load.Wait()
	fmt.Printf("the last request to an instance, after its lease of %v: p50 %v, max %v (leases end up to a second late); after it was asked to deregister: p50 %v, max %v\n",
		ttl, lab.At(expired, 50).Round(time.Millisecond), lab.At(expired, 100).Round(time.Millisecond), lab.At(left, 50).Round(100*time.Microsecond), lab.At(left, 100).Round(100*time.Microsecond))
	fmt.Printf("an instance that was killed beside another one: %d of %d requests failed in the 5 s after it; %d of %d before\n", wrong.Load()-before, asked.Load()-asking, before, asking)
	return nil
}

// asked waits for a request from then on.
func (t *target) asked(from time.Time) error {
	return lab.Until(time.Minute, func() bool { return t.last.Load() > from.UnixNano() })
}

// gone waits until nobody has asked for a second.
func (t *target) gone() error {
	return lab.Until(time.Minute, func() bool { return time.Since(time.Unix(0, t.last.Load())) > time.Second })
}
