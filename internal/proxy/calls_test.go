package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/route"
)

// places are the addresses of the services of production and of own.
var places = map[string]map[string]netip.Addr{ //nolint:gochecknoglobals // never changed
	"production": {"front": netip.MustParseAddr("127.1.0.1"), "back": netip.MustParseAddr("127.1.0.2"), "deep": netip.MustParseAddr("127.1.0.3")},
	"temp":       {"front": netip.MustParseAddr("127.2.0.1"), "back": netip.MustParseAddr("127.2.0.2"), "deep": netip.MustParseAddr("127.2.0.3")},
}

// shop is a table with production, from which temp borrows all but back, and twin all but what it shares.
func shop(t testing.TB) *route.Table {
	t.Helper()
	table := route.New(route.Options{})
	table.SetProject(route.Project{Name: "shop", Baseline: "production"})
	service := func(name string) route.Service {
		return route.Service{Name: name, Targets: []route.Target{{Deployment: name, Version: "v1", Weight: 1}}}
	}
	shared := service("front")
	shared.Pooled = true
	for _, e := range []route.Environment{
		{Name: "production", Services: []route.Service{service("front"), service("back"), service("deep")}},
		{Name: "temp", Base: "production", Services: []route.Service{service("back")}},
		{Name: "twin", Base: "production", Services: []route.Service{shared}},
	} {
		e.ID, e.Project = "id-"+e.Name, "shop"
		for service, addr := range places[e.Name] {
			e.Addresses = append(e.Addresses, route.Address{Addr: addr, Service: service})
		}
		for _, s := range []string{"front", "back", "deep"} {
			e.Hosts = append(e.Hosts, route.Host{Name: s + "-" + e.Name + ".localhost", Service: s})
		}
		if err := table.SetEnvironment(e); err != nil {
			t.Fatal(err)
		}
	}
	return table
}

// counter counts requests as the proxy does.
type counter struct {
	*Proxy
	now time.Time
}

func newCounter(t testing.TB) *counter {
	t.Helper()
	c := &counter{now: time.Unix(1000, 0)}
	c.Proxy = New(Config{Table: shop(t)})
	c.calls = newCalls(func() time.Time { return c.now })
	return c
}

// public begins a request from outside.
func (c *counter) public(env, service string) (end func()) {
	m := c.Table.Public(service+"-"+env+".localhost", "/")
	return c.calls.begin(m, 0, route.Source{}, false).ended
}

// call begins a request from inside.
func (c *counter) call(call route.Call) (end func()) {
	m := c.Table.Internal(call)
	return c.calls.begin(m, tells(m, byHeader), c.Table.Source(netip.Addr{}), false).ended
}

// lines gives the calls that were counted: ENV: FROM -> TO of WENT NUMBERS.
func (c *counter) lines() []string {
	list := []string{}
	for _, n := range c.Counts().Calls {
		if n.Total() == 0 {
			continue
		}
		carried := strings.NewReplacer("{", "", "}", "", " ", "").Replace(fmt.Sprint(n.Carried))
		list = append(list, fmt.Sprintf("%s: %s -> %s of %s %s", strings.TrimPrefix(n.EnvironmentID, "id-"), strings.Join(n.From, "|"), n.To, n.Went, carried))
	}
	sort.Strings(list)
	return list
}

func TestACallIsByWhoIsBeingAskedByItsEnvironment(t *testing.T) {
	bare := func(env, service string) route.Call { return route.Call{Local: places[env][service]} }
	named := func(service, env string) route.Call { return route.Call{Host: service + ".internal", Header: env} }
	for name, tc := range map[string]struct {
		during [][2]string // environment and service of requests from outside that are being answered
		call   route.Call
		want   string // header, baggage, host, trace, source, address, baseline
	}{
		"with a header":                         {[][2]string{{"temp", "front"}}, named("back", "temp"), "temp: front -> back of temp 1000000"},
		"with that of another environment":      {[][2]string{{"temp", "front"}}, named("back", "twin"), "twin:  -> back of twin 1000000"},
		"with a host":                           {[][2]string{{"temp", "front"}}, route.Call{Host: "back.temp.internal"}, "temp: front -> back of temp 0010000"},
		"with a trace":                          {[][2]string{{"temp", "front"}}, route.Call{Host: "back.internal", Trace: "temp"}, "temp: front -> back of temp 0001000"},
		"by one of two":                         {[][2]string{{"temp", "front"}, {"temp", "deep"}}, named("back", "temp"), "temp: deep|front -> back of temp 1000000"},
		"with nothing, by who is borrowed":      {[][2]string{{"temp", "front"}}, bare("production", "back"), "temp: front -> back of production 0000010"},
		"with nothing, by who is shared":        {[][2]string{{"twin", "front"}}, bare("production", "back"), "twin: front -> back of production 0000010"},
		"with nothing, for nobody":              {nil, bare("production", "back"), "production:  -> back of production 0000010"},
		"with nothing, for production":          {[][2]string{{"production", "front"}}, bare("production", "back"), "production: front -> back of production 0000010"},
		"with nothing, for one of two":          {[][2]string{{"production", "front"}, {"temp", "front"}}, bare("production", "back"), ": front -> back of production 0000010"},
		"with nothing, by what has its own":     {[][2]string{{"temp", "back"}}, bare("temp", "deep"), "temp: back -> deep of temp 0000010"},
		"others have other variables":           {[][2]string{{"temp", "back"}}, bare("production", "deep"), "production:  -> deep of production 0000010"},
		"not even an address":                   {[][2]string{{"temp", "back"}}, route.Call{Host: "deep.internal"}, "temp: back -> deep of production 0000001"},
		"not even an address, for one of three": {[][2]string{{"temp", "back"}, {"twin", "front"}}, route.Call{Host: "deep.internal"}, ": back|front -> deep of production 0000001"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCounter(t)
			before := c.public("production", "front") // what has ended is no suspect
			before()
			for _, d := range tc.during {
				defer c.public(d[0], d[1])()
			}
			c.call(tc.call)()
			if got := c.lines(); !slices.Equal(got, []string{tc.want}) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

func TestAnAddressTellsWhoCalls(t *testing.T) {
	c := newCounter(t)
	defer c.public("production", "front")()
	from := netip.MustParseAddr("10.9.0.5")
	c.Table.SetSource(from, route.Source{Environment: "temp", Service: "till"})
	m := c.Table.Internal(route.Call{Host: "back.internal", Source: c.caller(ends{remote: from, local: places["temp"]["back"]}).Environment})
	c.calls.begin(m, tells(m, byHeader), c.Table.Source(from), false).ended()
	if got := c.lines(); !slices.Equal(got, []string{"temp: till -> back of temp 0000100"}) {
		t.Errorf("%q", got)
	}
}

func TestWhatLastsForLongIsNoSuspect(t *testing.T) {
	c := newCounter(t)
	c.calls.begin(c.Table.Public("front-temp.localhost", "/"), 0, route.Source{}, true).ended()
	c.calls.begin(c.Table.Public("front-temp.localhost", "/"), 0, route.Source{}, true) // goes on
	c.call(route.Call{Local: places["production"]["back"]})()
	if got := c.lines(); !slices.Equal(got, []string{"production:  -> back of production 0000010"}) {
		t.Errorf("%q", got)
	}
	for _, s := range c.Counts().Served {
		if s.EnvironmentID == "id-temp" && (s.Service != "front" || s.Requests != 2) {
			t.Errorf("%+v", s)
		}
	}
}

func TestMoreThanThreeSuspectsAreNone(t *testing.T) {
	var s services
	for _, name := range []string{"c", "a", "b", "a"} {
		s.add(name)
	}
	if got := s.sorted(); got != [suspects]string{"a", "b", "c"} {
		t.Errorf("three: %q", got)
	}
	s.add("d")
	if got := s.sorted(); got != [suspects]string{} {
		t.Errorf("four: %q", got)
	}
}

// TestWhoeverCallsIsFoundAsByHand compares with the rule, said once more in a few lines, over any sequence of
// requests that begin and end.
func TestWhoeverCallsIsFoundAsByHand(t *testing.T) {
	table := shop(t)
	rapid.Check(t, func(t *rapid.T) {
		c := &counter{now: time.Unix(1000, 0), Proxy: &Proxy{Config: Config{Table: table}}}
		c.calls = newCalls(func() time.Time { return c.now })
		type flight struct {
			env, service, home string
			end                func()
		}
		var flights []flight
		want := map[string]int{}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			env := rapid.SampledFrom([]string{"production", "temp", "twin"}).Draw(t, "env")
			service := rapid.SampledFrom([]string{"front", "back", "deep"}).Draw(t, "service")
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				home := "production"
				if env == "temp" && service == "back" {
					home = "temp"
				} else if env == "twin" && service == "front" {
					home = ""
				}
				flights = append(flights, flight{env, service, home, c.public(env, service)})
			case 1:
				if len(flights) > 0 {
					i := rapid.IntRange(0, len(flights)-1).Draw(t, "which")
					flights[i].end()
					flights = slices.Delete(flights, i, i+1)
				}
			case 2: // with a header
				from := map[string]bool{}
				for _, f := range flights {
					if f.env == env {
						from[f.service] = true
					}
				}
				want[fmt.Sprintf("%s: %s -> %s of %s", env, join(from), service, env)]++
				c.call(route.Call{Host: service + ".internal", Header: env})()
			default: // with nothing
				at := rapid.SampledFrom([]string{"production", "temp"}).Draw(t, "address")
				from, envs := map[string]bool{}, map[string]bool{}
				for _, f := range flights {
					if f.home == at || f.home == "" {
						from[f.service], envs[f.env] = true, true
					}
				}
				whose := at
				switch len(envs) {
				case 0:
				case 1:
					whose = join(envs)
				default:
					whose = ""
				}
				want[fmt.Sprintf("%s: %s -> %s of %s", whose, join(from), service, at)]++
				c.call(route.Call{Local: places[at][service]})()
			}
		}
		got := map[string]int{}
		for _, line := range c.lines() {
			at := strings.LastIndexByte(line, ' ')
			got[line[:at]] = 0
		}
		for _, n := range c.Counts().Calls {
			got[fmt.Sprintf("%s: %s -> %s of %s", strings.TrimPrefix(n.EnvironmentID, "id-"), strings.Join(n.From, "|"), n.To, n.Went)] += int(n.Total())
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("counted %v, want %v", got, want)
		}
		for _, f := range flights {
			f.end()
		}
		if busy := len(c.calls.project("shop").busy); busy != 0 {
			t.Fatalf("%d are being asked something after the end", busy)
		}
	})
}

func join(set map[string]bool) string {
	var list []string
	for s := range set {
		list = append(list, s)
	}
	sort.Strings(list)
	return strings.Join(list, "|")
}

func TestManyAtOnceAreCountedExactly(t *testing.T) {
	c := newCounter(t)
	const workers, each = 8, 2000
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range each {
				switch (w + i) % 3 {
				case 0:
					c.public("temp", "front")()
				case 1:
					c.call(route.Call{Host: "back.internal", Header: "temp"})()
				default:
					c.call(route.Call{Local: places["production"]["deep"]})()
				}
			}
		})
	}
	all.Wait()
	var served, called uint64
	counts := c.Counts()
	for _, s := range counts.Served {
		served += s.Requests
	}
	for _, n := range counts.Calls {
		called += n.Total()
	}
	var inside uint64
	for w := range workers {
		for i := range each {
			if (w+i)%3 != 0 {
				inside++
			}
		}
	}
	if served != workers*each || called != inside {
		t.Errorf("%d requests and %d calls, want %d and %d", served, called, workers*each, inside)
	}
	for s, n := range c.calls.project("shop").busy {
		t.Errorf("%s is asked %d things", s.service, n)
	}
}

func TestWhatIsCountedIsBounded(t *testing.T) {
	c := newCounter(t)
	rows := func() (n int) {
		counts := c.Counts()
		return len(counts.Served) + len(counts.Calls)
	}
	project := c.calls.project("shop")
	made := 0
	// crowd adds rows of environments as requests for them do.
	crowd := func(n int, busy bool) {
		for range n {
			made++
			s := &served{env: fmt.Sprint("e", made), service: "s", asked: project}
			s.used.Store(busy)
			c.calls.makeRoom()
			shard := c.calls.shard(s.env)
			shard.mu.Lock()
			if shard.served == nil {
				shard.served = map[string][]*served{}
			}
			shard.served[s.env] = append(shard.served[s.env], s)
			shard.mu.Unlock()
			c.calls.rows.Add(1)
		}
	}
	c.public("temp", "front")()
	c.now = c.now.Add(time.Hour)
	began := c.Counts().Since
	// Many that are asked once go when there is no room; who is asked again stays.
	for range 4 {
		c.public("temp", "front")()
		crowd(maxRows/2, false)
	}
	if n := rows(); n > maxRows {
		t.Errorf("%d rows", n)
	}
	if got := c.Counts(); !got.Since.Equal(began) || requests(got, "id-temp") != 5 {
		t.Errorf("of who was asked all the time %d requests are known, since %v", requests(got, "id-temp"), got.Since)
	}
	// Where all are asked all the time, it begins anew, and says so.
	crowd(2*maxRows, true)
	if n := rows(); n > maxRows {
		t.Errorf("%d rows", n)
	}
	if got := c.Counts(); !got.Since.Equal(c.now) {
		t.Errorf("it has begun anew, but says %v", got.Since)
	}
}

func requests(c dayfly.CallCounts, env string) (n uint64) {
	for _, s := range c.Served {
		if s.EnvironmentID == env {
			n += s.Requests
		}
	}
	return n
}

// BenchmarkCounting is what a request costs more than without counters.
func BenchmarkCounting(b *testing.B) {
	c := newCounter(b)
	public := c.Table.Public("front-temp.localhost", "/")
	inside := c.Table.Internal(route.Call{Host: "back.internal", Header: "temp"})
	bare := c.Table.Internal(route.Call{Local: places["production"]["back"]})
	for name, m := range map[string]route.Match{"public": public, "inside": inside, "bare": bare} {
		told := tells(m, byHeader)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					c.calls.begin(m, told, route.Source{}, false).ended()
				}
			})
		})
	}
}

// BenchmarkInternal is a whole request, without sockets on the way in.
func BenchmarkInternal(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	table := shop(b)
	table.SetDeployment("back", []route.Endpoint{{Instance: "i", Address: server.Listener.Addr().String()}})
	p := New(Config{Table: table})
	defer p.http1.CloseIdleConnections()
	h := p.Internal()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r := httptest.NewRequest(http.MethodGet, "http://back.internal/", nil)
			r.Header.Set("X-Dayfly-Env", "temp")
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code != http.StatusOK {
				b.Error(w.Code)
			}
		}
	})
}

func TestAmongManyNobodyIsSuspected(t *testing.T) {
	a := asked{busy: map[*served]int{}}
	for i := range mostSuspects - 1 {
		a.busy[&served{env: fmt.Sprint("e", i), service: "front", home: "production"}] = 1
	}
	key := pairKey{env: "id-production"}
	if a.suspect(&key, "production"); key.env != "" || key.from[0] != "front" {
		t.Errorf("of few: %+v", key)
	}
	a.busy[&served{env: "e", service: "front", home: "production"}] = 1
	key = pairKey{env: "id-production"}
	if a.suspect(&key, "production"); key != (pairKey{}) {
		t.Errorf("of many: %+v", key)
	}
}
