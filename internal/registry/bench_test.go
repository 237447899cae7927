package registry_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/release"
)

// fill writes n environments with a deployment each.
func fill(b *testing.B, s *registry.Store, n int) {
	b.Helper()
	for i := 0; i < n; i += 500 {
		var ops []registry.Op
		for j := i; j < min(n, i+500); j++ {
			id, name := fmt.Sprintf("id%06d", j), fmt.Sprintf("shop-%06d", j)
			ops = append(ops,
				registry.Create(registry.Environments, name, dayfly.EnvironmentRecord{ID: id, Spec: dayfly.EnvironmentSpec{Name: name, Project: "shop"}}),
				registry.Create(registry.Deployments, "d"+id, dayfly.Deployment{ID: "d" + id, Key: dayfly.DeploymentKey{Owner: id, Project: "shop"}}))
		}
		commit(b, s, ops...)
	}
}

func status(i int) registry.Op {
	return registry.Put(registry.Observed, "d", dayfly.DeploymentStatus{Deployment: "d", Message: fmt.Sprint(i)})
}

// BenchmarkCommit is one small write, synced to disk.
func BenchmarkCommit(b *testing.B) {
	for name, config := range map[string]func(b *testing.B) registry.Config{
		"embedded": func(b *testing.B) registry.Config { return registry.Config{Dir: b.TempDir()} },
		"process": func(b *testing.B) registry.Config {
			return registry.Config{Endpoints: []string{startProcess(b).address}}
		},
	} {
		b.Run(name, func(b *testing.B) {
			s := open(b, config(b))
			for i := 0; b.Loop(); i++ {
				commit(b, s, status(i))
			}
		})
	}
}

// BenchmarkCommitToCache is a write until it is in the cache, with few and with many
// environments there.
func BenchmarkCommitToCache(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n, "-environments"), func(b *testing.B) {
			s := open(b, registry.Config{Dir: b.TempDir()})
			fill(b, s, n)
			c := startCache(b, s)
			var watch []time.Duration
			for i := 0; b.Loop(); i++ {
				revision := commit(b, s, status(i))
				begin := time.Now()
				wait(b, c, revision)
				watch = append(watch, time.Since(begin))
			}
			slices.Sort(watch)
			b.ReportMetric(float64(watch[len(watch)/2].Microseconds()), "µs-after-commit-p50")
			b.ReportMetric(float64(watch[len(watch)*99/100].Microseconds()), "µs-after-commit-p99")
		})
	}
}

// BenchmarkStartCache loads 10,000 environments and tells what they take in memory.
func BenchmarkStartCache(b *testing.B) {
	s := open(b, registry.Config{Dir: b.TempDir()})
	fill(b, s, 10_000)
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / 1e6
	}
	for b.Loop() {
		b.StopTimer()
		before := heap()
		b.StartTimer()
		c := registry.NewCache(s)
		if err := c.Start(context.Background()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		b.ReportMetric(heap()-before, "heap-MB")
		c.Close()
		b.StartTimer()
	}
}

func BenchmarkLookup(b *testing.B) {
	s := open(b, registry.Config{Dir: b.TempDir()})
	fill(b, s, 10_000)
	c := startCache(b, s)
	b.Run("key", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := registry.Lookup(c, registry.Environments, "shop-005000"); !ok {
				b.Fatal("not found")
			}
		}
	})
	b.Run("index", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for range registry.DeploymentsOf(c, "id005000") {
			}
		}
	})
}

// BenchmarkEvents appends events one after the other, as fast as they are written.
func BenchmarkEvents(b *testing.B) {
	s := open(b, registry.Config{Dir: b.TempDir()})
	for i := 0; b.Loop(); i++ {
		add(b, s, fmt.Sprint("env", i%10), "a step was done")
	}
	events(b, s, "env0", 0)
}

// BenchmarkUsersOf finds the ten environments that share a deployment, among few and among many that
// share another one.
func BenchmarkUsersOf(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n, "-environments"), func(b *testing.B) {
			s := open(b, registry.Config{Dir: b.TempDir()})
			key := func(service string) dayfly.DeploymentKey {
				return dayfly.DeploymentKey{Project: "shop", Service: service, Version: "c-" + service, Hash: "h", Owner: dayfly.SharedOwner("shop")}
			}
			for i := 0; i < n; i += 250 {
				var ops []registry.Op
				for j := i; j < min(n, i+250); j++ {
					id, name, service := fmt.Sprintf("id%06d", j), fmt.Sprintf("shop-%06d", j), "web"
					if j%(n/10) == 0 {
						service = "api"
					}
					ops = append(ops,
						registry.Create(registry.Environments, name, dayfly.EnvironmentRecord{ID: id, Spec: dayfly.EnvironmentSpec{Name: name, Project: "shop"}}),
						registry.Create(registry.Resolutions, name, dayfly.Resolution{Environment: id, Services: []dayfly.ResolvedService{
							{Name: service, From: dayfly.FromShared, Commit: "c-" + service, Hash: "h"}}}),
						registry.Create(registry.Releases, name, release.State{Services: map[string][]release.Target{service: {{Deployment: key(service).ID(), Weight: 1}}}}))
				}
				commit(b, s, ops...)
			}
			c := startCache(b, s)
			for b.Loop() {
				if users := registry.UsersOf(c, key("api")); len(users) != 10 {
					b.Fatalf("%d environments share it", len(users))
				}
			}
		})
	}
}
