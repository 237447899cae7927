// Command route measures how long a change of one environment's route takes from
// the write into the state until a lookup gives it, and what it costs, with few and
// with many environments in the table.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/feed"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/release"
	"github.com/dayfly-dev/dayfly/internal/route"
)

func main() {
	changes := flag.Int("changes", 1000, "changes to measure, for each size")
	flag.Parse()
	for _, n := range []int{100, 10_000} {
		if err := measure(n, *changes); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func measure(environments, changes int) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir, err := os.MkdirTemp("", "dayfly-bench-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	quiet := slog.New(slog.DiscardHandler)
	store, err := registry.Open(ctx, registry.Config{Dir: dir, Logger: quiet})
	if err != nil {
		return err
	}
	defer store.Close()
	for i := range environments {
		if err := write(ctx, store, i); err != nil {
			return err
		}
	}
	cache := registry.NewCache(store)
	if err := cache.Start(ctx); err != nil {
		return err
	}
	defer cache.Close()
	before := heap()
	table := route.New(route.Options{Domain: "localhost"})
	f := feed.New(cache, table, quiet)
	start := time.Now()
	f.Load()
	load := time.Since(start)
	perEnvironment := (heap() - before) / uint64(environments)
	go f.Run(ctx)

	name := envName(environments / 2)
	var total, committed []time.Duration
	cpu := processTime()
	for i := range changes {
		version := fmt.Sprint("v", i)
		start := time.Now()
		_, err := registry.Commit(ctx, store, registry.Put(registry.Releases, name, state(name, version)))
		if err != nil {
			return err
		}
		written := time.Now()
		for {
			m := table.Public(name+".localhost", "/")
			if claim, ok := m.Claim("", nil); ok {
				current := claim.Version()
				claim.Done(false)
				if current == version {
					break
				}
			}
			runtime.Gosched()
		}
		total, committed = append(total, time.Since(start)), append(committed, time.Since(written))
	}
	cpu = (processTime() - cpu) / time.Duration(changes)
	fmt.Printf("%6d environments: change to served p50 %v p99 %v (of which after the write returned p50 %v p99 %v), CPU %v each (with the busy wait), load %v, table %d B per environment\n",
		environments, at(total, 50), at(total, 99), at(committed, 50), at(committed, 99), cpu.Round(time.Microsecond), load.Round(time.Millisecond), perEnvironment)
	return nil
}

func envName(i int) string { return fmt.Sprintf("shop-branch-%05d", i) }

func state(name, version string) release.State {
	return release.State{Format: dayfly.Format, Services: map[string][]release.Target{
		"web": {{Deployment: "d-" + name, Version: version, Weight: 1}},
	}}
}

// write makes the records of a running environment of one service.
func write(ctx context.Context, store *registry.Store, i int) error {
	name := envName(i)
	id := "e-" + name
	def := &dayfly.Definition{Service: "web", Port: 80, Protocol: dayfly.ProtocolHTTP, Routes: []dayfly.PathRoute{{Path: "/"}}}
	_, err := registry.Commit(ctx, store,
		registry.Create(registry.Environments, name, dayfly.EnvironmentRecord{Format: dayfly.Format, ID: id, Spec: dayfly.EnvironmentSpec{Name: name, Project: "shop"}}),
		registry.Create(registry.Resolutions, name, dayfly.Resolution{Format: dayfly.Format, Environment: id, Services: []dayfly.ResolvedService{{
			Name: "web", From: dayfly.FromOwn, Commit: "c", Hash: "h", Definition: def,
			Address: fmt.Sprintf("127.1.%d.%d", i/250, i%250+1), Hosts: []string{name + ".localhost", "web-" + name + ".localhost"},
		}}}),
		registry.Create(registry.Releases, name, state(name, "v")),
		registry.Create(registry.Deployments, "d-"+name, dayfly.Deployment{Format: dayfly.Format, ID: "d-" + name, Environment: name,
			Key: dayfly.DeploymentKey{Project: "shop", Service: "web", Version: "c", Hash: "h", Owner: id}, Definition: def, Replicas: 1}),
		registry.Create(registry.Observed, "d-"+name, dayfly.DeploymentStatus{Format: dayfly.Format, Deployment: "d-" + name, Phase: dayfly.DeploymentReady,
			Instances: []dayfly.Instance{{ID: "i-" + name, Address: "127.0.0.1:1", Phase: dayfly.InstanceHealthy}}}))
	return err
}

func at(d []time.Duration, percentile int) time.Duration {
	slices.Sort(d)
	return d[min(len(d)-1, len(d)*percentile/100)].Round(time.Microsecond)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func processTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
