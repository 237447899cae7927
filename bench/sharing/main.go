// Command sharing measures what environments cost that override one of five services and borrow the
// others from a base: memory, a change of one of them, a change of the base that all borrow from,
// requests and names per second, and instances that register themselves. It starts one server with few
// and one with many of them and asks them in turn, so that what else goes on on the machine meets both;
// what has to be seen are the ratios.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	wire "github.com/miekg/dns"

	"github.com/dayfly-dev/dayfly/bench/lab"
)

func main() {
	var o options
	flag.StringVar(&o.binary, "dayfly", "bin/dayfly", "the binary to measure")
	flag.StringVar(&o.service, "service", "", "bench/service ready made; empty = build it")
	flag.IntVar(&o.few, "few", 100, "environments of the one server")
	flag.IntVar(&o.many, "environments", 10_000, "environments of the other one")
	flag.IntVar(&o.rounds, "rounds", 20, "changes of each kind to measure, each")
	flag.DurationVar(&o.turn, "turn", 2*time.Second, "how long requests and names are asked for at a time, five times each")
	flag.IntVar(&o.registrations, "registrations", 20_000, "instances that register themselves with the server that has many; the other gets a hundredth")
	flag.DurationVar(&o.ttl, "ttl", time.Minute, "of registrations, which are renewed three times as often")
	flag.StringVar(&o.only, "only", "", "names of what to measure, see run; empty = all")
	flag.StringVar(&o.profiles, "profiles", "", "folder for what perf records of the server with many; empty = it does not")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type options struct {
	binary, service   string
	only, profiles    string
	few, many, rounds int
	turn, ttl         time.Duration
	registrations     int
}

func run(o options) error {
	var worlds []*world
	for _, n := range []int{o.few, o.many} {
		w, err := newWorld(o.binary, o.service, n)
		if w != nil && w.Lab != nil {
			defer w.Close()
		}
		if err != nil {
			return err
		}
		w.settle()
		worlds = append(worlds, w)
		fmt.Printf("%6d environments: %d processes; table %.0f B for each; server resident %s\n",
			n, len(w.Processes()), w.tablePerEnv, lab.MiB(lab.Resident(w.PID())))
	}
	fmt.Printf("        resident: %.1f KiB for each more\n", float64(lab.Resident(worlds[1].PID())-lab.Resident(worlds[0].PID()))/1024/float64(o.many-o.few))
	few, many := worlds[0], worlds[1]
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"rest", func() error { return compare("at rest for 10 s", 1, few, many, rest) }},
		{"one", func() error {
			return compare("a change of one environment, asked for to served", o.rounds, few, many, changeOne)
		}},
		{"base", func() error {
			return compare("a change of the base, asked for to served for a borrower", o.rounds, few, many, changeBase)
		}},
		{"kill", func() error {
			return compare("a process that a fifth of them share is killed, until it serves again", len(services), few, many, kill)
		}},
		{"commit", func() error {
			return compare("a commit that concerns none of them, until the server is quiet", 2, few, many, commit)
		}},
		{"requests", func() error { return rates("requests to borrowers", o.turn, few, many, (*world).requests) }},
		{"names", func() error { return rates("names of borrowed services", o.turn, few, many, (*world).lookups) }},
		{"register", func() error { return registrations(o, few, many) }},
		{"deaths", func() error { return deaths(many) }},
	} {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), step.name) {
			continue
		}
		end, err := o.record(many, step.name)
		if err == nil {
			err = errors.Join(step.do(), end())
		}
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// record lets perf look at a server, where that is wanted, until end is called.
func (o options) record(w *world, name string) (end func() error, err error) {
	if o.profiles == "" {
		return func() error { return nil }, nil
	}
	perf := exec.Command("perf", "record", "-q", "-F", "199", "-g", "-o", filepath.Join(o.profiles, name+".data"), "-p", fmt.Sprint(w.PID()))
	if err := perf.Start(); err != nil {
		return nil, err
	}
	return func() error {
		_ = perf.Process.Signal(os.Interrupt)
		_ = perf.Wait() // it ends by the signal
		return nil
	}, nil
}

// settle waits until the server has been quiet for a second.
func (w *world) settle() time.Duration {
	begun := time.Now()
	for time.Since(begun) < 10*time.Minute {
		before, quiet := lab.CPU(w.PID())+lab.ChildrenCPU(w.PID()), time.Now()
		time.Sleep(time.Second)
		if lab.CPU(w.PID())+lab.ChildrenCPU(w.PID())-before <= 30*time.Millisecond {
			return quiet.Sub(begun)
		}
	}
	return time.Since(begun)
}

// compare does something in turn with both servers, and prints the medians of the time that it took
// and the CPU that the servers used for it, until they were quiet.
func compare(what string, rounds int, few, many *world, do func(w *world, round int) (time.Duration, error)) error {
	took := map[*world][]time.Duration{}
	used := map[*world]time.Duration{}
	for round := range rounds {
		for _, w := range []*world{few, many} {
			before := lab.CPU(w.PID()) + lab.ChildrenCPU(w.PID())
			d, err := do(w, round)
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			w.settle()
			used[w] += lab.CPU(w.PID()) + lab.ChildrenCPU(w.PID()) - before
			took[w] = append(took[w], d)
		}
	}
	for _, w := range []*world{few, many} {
		fmt.Printf("%6d environments: %s p50 %v, max %v; CPU %v each\n", w.n, what,
			lab.At(took[w], 50).Round(10*time.Microsecond), lab.At(took[w], 100).Round(10*time.Microsecond), (used[w] / time.Duration(rounds)).Round(10*time.Microsecond))
	}
	fmt.Printf("        %s: %.2f times as long, %.2f times the CPU\n", what,
		float64(lab.At(took[many], 50))/float64(lab.At(took[few], 50)), float64(used[many]+1)/float64(used[few]+1))
	return nil
}

// version alternates, beginning with what is not there.
func version(round int, begin, other string) string {
	if round%2 == 0 {
		return begin
	}
	return other
}

// rest does nothing.
func rest(*world, int) (time.Duration, error) {
	time.Sleep(10 * time.Second) // this is what is measured
	return 10 * time.Second, nil
}

// changeOne changes what one environment overrides its service with.
func changeOne(w *world, round int) (time.Duration, error) {
	i := w.n / 2 / len(services) * len(services)
	to := version(round, old, next)
	begun := time.Now()
	if err := w.put(temp(i), body(map[string]string{overridden(i): to})); err != nil {
		return 0, err
	}
	err := w.says(overridden(i)+"-"+temp(i), to)
	return time.Since(begun), err
}

// changeBase changes a service of the base; who overrides another one has it at once.
func changeBase(w *world, round int) (time.Duration, error) {
	to := version(round, next, old)
	versions := all(old)
	versions[services[0]] = to
	wish := body(versions)
	wish["base"] = "none"
	begun := time.Now()
	if err := w.put(base, wish); err != nil {
		return 0, err
	}
	err := w.says(temp(w.n-1), to) // n is a multiple of the number of services: the last one overrides the last
	return time.Since(begun), err
}

// kill ends a process that a fifth of the environments share.
func kill(w *world, round int) (time.Duration, error) {
	service := overridden(round) // each time another one, which starts again at once
	host := service + "-" + temp(round)
	pids, err := w.instances(service, next)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	for _, pid := range pids {
		if process, err := os.FindProcess(pid); err == nil {
			_ = process.Kill()
		}
	}
	if err := lab.Until(time.Minute, func() bool {
		now, err := w.instances(service, next)
		return err == nil && len(now) > 0 && !slices.Contains(pids, now[0])
	}); err != nil {
		return 0, err
	}
	err = w.says(host, next)
	return time.Since(begun), err
}

// commit moves the default branch by a file that no service has.
func commit(w *world, round int) (time.Duration, error) {
	begun := time.Now()
	if err := lab.Commit(w.repo, map[string]string{"README": fmt.Sprint(round)}); err != nil {
		return 0, err
	}
	time.Sleep(time.Second) // to be noticed
	w.settle()
	return time.Since(begun), nil
}

// rates asks both servers in turn and prints how much they answer.
func rates(what string, turn time.Duration, few, many *world, ask func(w *world, until time.Time) (int, error)) error {
	type sum struct {
		n         int
		took, cpu time.Duration
	}
	sums := map[*world]*sum{few: {}, many: {}}
	for round := range 6 { // the first one warms up
		for _, w := range []*world{few, many} {
			cpu, begun := lab.CPU(w.PID()), time.Now()
			n, err := ask(w, begun.Add(turn))
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			if round > 0 {
				s := sums[w]
				s.n, s.took, s.cpu = s.n+n, s.took+time.Since(begun), s.cpu+lab.CPU(w.PID())-cpu
			}
		}
	}
	rate := func(w *world) float64 { return float64(sums[w].n) / sums[w].took.Seconds() }
	cpu := func(w *world) time.Duration { return sums[w].cpu / time.Duration(max(1, sums[w].n)) }
	for _, w := range []*world{few, many} {
		fmt.Printf("%6d environments: %.0f %s per second, %v of CPU each\n", w.n, rate(w), what, cpu(w).Round(100*time.Nanosecond))
	}
	fmt.Printf("        %s: %.2f times as many, %.2f times the CPU\n", what, rate(many)/rate(few), float64(cpu(many)+1)/float64(cpu(few)+1))
	return nil
}

// parallel calls from several goroutines until it is time, each with other numbers, and counts.
func parallel(n int, until time.Time, call func(worker, i int) error) (int, error) {
	var total atomic.Int64
	var failed atomic.Pointer[error]
	var workers sync.WaitGroup
	for worker := range n {
		workers.Go(func() {
			for i := worker; time.Now().Before(until) && failed.Load() == nil; i += n {
				if err := call(worker, i); err != nil {
					failed.Store(&err)
					return
				}
				total.Add(1)
			}
		})
	}
	workers.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return int(total.Load()), nil
}

// requests asks borrowers all over, by their hosts, for what they borrow.
func (w *world) requests(until time.Time) (int, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport}
	return parallel(8, until, func(_, i int) error {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+w.Public+"/", nil)
		if err != nil {
			return err
		}
		req.Host = temp(i*7919%w.n) + ".localhost"
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answered %d", req.Host, resp.StatusCode)
		}
		_, err = resp.Body.Read(make([]byte, 512))
		if err != nil && err.Error() != "EOF" {
			return err
		}
		return nil
	})
}

// lookups asks for internal names of borrowers all over.
func (w *world) lookups(until time.Time) (int, error) {
	workers := 2 * runtime.NumCPU()
	var sockets []*wire.Conn
	for range workers {
		c, err := (&net.Dialer{}).DialContext(context.Background(), "udp", w.dns)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		sockets = append(sockets, &wire.Conn{Conn: c})
	}
	return parallel(workers, until, func(worker, i int) error {
		k := i * 7919 % w.n
		q := new(wire.Msg).SetQuestion(services[(k+1)%len(services)]+"."+temp(k)+".internal.", wire.TypeA)
		s := sockets[worker]
		if err := s.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		if err := s.WriteMsg(q); err != nil {
			return err
		}
		r, err := s.ReadMsg()
		if err == nil && (r.Rcode != wire.RcodeSuccess || len(r.Answer) == 0) {
			err = fmt.Errorf("%s: %v", q.Question[0].Name, r)
		}
		return err
	})
}
