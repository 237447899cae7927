package route_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/route"
)

func TestLookupsAndClaimsDoNotAllocate(t *testing.T) {
	table := shopAndBlog(t)
	long := strings.Repeat("long-", 8) + "name.localhost"
	set(t, table, route.Environment{
		Name: "long", Project: "shop", Base: "feature", PublicHeader: true, Hosts: []route.Host{{Name: long}},
	})
	table.SetDeployment("d", endpoints("i", 5))
	public := strings.ToUpper(long) + ":8080"
	calls := map[string]func() route.Match{
		"public":          func() route.Match { return table.Public(public, "/api/v2/x") },
		"public header":   func() route.Match { return table.PublicFor(long, "/api", "Production") },
		"public unknown":  func() route.Match { return table.Public("nothing-has-this-rather-long-name.localhost:8080", "/") },
		"internal header": func() route.Match { return table.Internal(route.Call{Host: "MAIL.internal:7071", Header: "feature"}) },
		"internal host":   func() route.Match { return table.Internal(route.Call{Host: "mail.long.service"}) },
		"internal address": func() route.Match {
			return table.Internal(route.Call{Host: "127.1.2.3:7071", Local: local4, Trace: "gone"})
		},
		"internal baseline": func() route.Match { return table.Internal(route.Call{Host: "mail.internal"}) },
		"internal two":      func() route.Match { return table.Internal(route.Call{Host: "cache.internal"}) },
	}
	for name, call := range calls {
		want := call()
		n := testing.AllocsPerRun(200, func() {
			m := call()
			var tried route.Tried
			for range 2 {
				if c, ok := m.Claim("v1", &tried); ok {
					_ = c.Cut()
					c.Done(false)
				}
			}
			if m.Outcome != want.Outcome {
				t.Error(m.Outcome)
			}
		})
		if n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestAWriteCostsTheSameWithTenThousandEnvironments counts allocations instead
// of time: the tries are a level or two deeper, and that is all.
func TestAWriteCostsTheSameWithTenThousandEnvironments(t *testing.T) {
	cost := func(n int) (change, create float64) {
		table := route.New(route.Options{})
		world(t, table, n)
		states := []string{"ready", "degraded"}
		i := 0
		change = testing.AllocsPerRun(100, func() {
			i++
			set(t, table, crowd(0, states[i%2])) // the base of all
		})
		extra := crowd(n, "ready")
		create = testing.AllocsPerRun(100, func() {
			set(t, table, extra)
			table.DeleteEnvironment(extra.Name)
		})
		return change, create
	}
	change, create := cost(100)
	changeMany, createMany := cost(10_000)
	t.Logf("allocations of a change: %v and %v, of create and delete: %v and %v", change, changeMany, create, createMany)
	// A path through the trie of environments, and of create and delete
	// through those of a name, six hosts and five addresses, there and back. How
	// deep a path is hangs on the hash, whose seed is another in each run.
	const deeper, nodeAllocations = 6, 2
	if changeMany > change+1*deeper*nodeAllocations {
		t.Errorf("a change took %v allocations with 100 environments and %v with 10,000", change, changeMany)
	}
	if createMany > create+2*12*deeper*nodeAllocations {
		t.Errorf("create and delete took %v allocations with 100 environments and %v with 10,000", create, createMany)
	}
}

func BenchmarkPublic(b *testing.B) {
	sizes(b, func(b *testing.B, table *route.Table, n int) {
		hosts := make([]string, 1024)
		for i := range hosts {
			hosts[i] = fmt.Sprintf("service1-env-%d.localhost:8080", i*7919%n)
		}
		parallel(b, func(i int) {
			if m := table.Public(hosts[i%1024], "/api/v1"); m.Outcome != route.Found {
				b.Error(m.Outcome)
			}
		})
	})
}

func BenchmarkPublicByPath(b *testing.B) {
	sizes(b, func(b *testing.B, table *route.Table, n int) {
		hosts := make([]string, 1024)
		for i := range hosts {
			hosts[i] = fmt.Sprintf("env-%d.localhost:8080", i*7919%n)
		}
		parallel(b, func(i int) {
			if m := table.Public(hosts[i%1024], "/api/v1"); m.Outcome != route.Found {
				b.Error(m.Outcome)
			}
		})
	})
}

func BenchmarkInternal(b *testing.B) {
	sizes(b, func(b *testing.B, table *route.Table, n int) {
		calls := make([]route.Call, 1024)
		for i := range calls {
			env := i * 7919 % n
			calls[i] = route.Call{Host: "127.0.0.1:7071", Local: crowdAddress(env, 2), Header: fmt.Sprint("env-", env)}
		}
		parallel(b, func(i int) {
			if m := table.Internal(calls[i%1024]); m.Outcome != route.Found {
				b.Error(m.Outcome)
			}
		})
	})
}

func BenchmarkClaim(b *testing.B) {
	for _, n := range []int{1, 2, 10, 100} {
		b.Run(fmt.Sprint("instances=", n), func(b *testing.B) {
			table, m := web(b, route.Options{}, route.Target{Deployment: "d", Version: "v1", Weight: 4}, route.Target{Deployment: "d2", Weight: 1})
			table.SetDeployment("d", endpoints("i", n))
			table.SetDeployment("d2", endpoints("j", n))
			parallel(b, func(int) {
				var tried route.Tried
				c, _ := m.Claim("", &tried)
				c.Done(false)
			})
		})
	}
}

func BenchmarkSetEnvironment(b *testing.B) {
	b.Run("change", func(b *testing.B) {
		sizes(b, func(b *testing.B, table *route.Table, n int) {
			change := []route.Environment{crowd(0, "ready"), crowd(0, "degraded")}
			for i := 0; b.Loop(); i++ {
				set(b, table, change[i%2])
			}
		})
	})
	b.Run("create+delete", func(b *testing.B) {
		sizes(b, func(b *testing.B, table *route.Table, n int) {
			extra := crowd(n, "ready")
			for b.Loop() {
				set(b, table, extra)
				table.DeleteEnvironment(extra.Name)
			}
		})
	})
}

// BenchmarkMemory reports what an environment of five services with an instance
// each, six hosts and five addresses takes, names included.
func BenchmarkMemory(b *testing.B) {
	for range b.N {
		const n = 10_000
		before := heap()
		table := route.New(route.Options{})
		world(b, table, n)
		b.ReportMetric(float64(heap()-before)/n, "B/env")
		runtime.KeepAlive(table)
	}
}

func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

func sizes(b *testing.B, run func(*testing.B, *route.Table, int)) {
	for _, n := range []int{100, 10_000} {
		table := route.New(route.Options{Domain: "localhost"})
		world(b, table, n)
		b.Run(fmt.Sprint("environments=", n), func(b *testing.B) { run(b, table, n) })
	}
}

func parallel(b *testing.B, run func(i int)) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			run(i)
		}
	})
}
