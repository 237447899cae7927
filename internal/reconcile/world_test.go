package reconcile_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/reconcile"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/registry/registrytest"
	"github.com/dayfly-dev/dayfly/internal/release"
	"github.com/dayfly-dev/dayfly/internal/runner"
	"github.com/dayfly-dev/dayfly/internal/runner/fake"
	"github.com/dayfly-dev/dayfly/internal/runner/local"
	"github.com/dayfly-dev/dayfly/internal/status"
)

// asService makes the test binary the program of a service.
const asService = "as-service"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == asService {
		serve(os.Args[2])
		return
	}
	goleak.VerifyTestMain(m)
}

// The programs of the tests' services.
const (
	web      = "web"       // serves at its port
	job      = "job"       // ends well
	badBuild = "bad build" // cannot be built
	crashing = "crashing"  // ends at once, each time
)

func serve(kind string) {
	switch kind {
	case job:
		fmt.Println("done")
	case badBuild:
		fmt.Println("no such thing")
		os.Exit(1)
	case crashing:
		fmt.Println("giving up")
		os.Exit(3)
	default:
		panic(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), http.NotFoundHandler()))
	}
}

// kind is a runner to reconcile with.
type kind struct {
	name string
	// host makes what outlives a runner, and says how to make a runner on it, what is
	// there, and how often instances of a deployment were started.
	host func(t *testing.T) host
}

type host struct {
	open func() runner.Runner
	move func(instance string) // by the cluster itself; nil where there is none
}

func kinds() []kind {
	inMemory := func(mode fake.Mode, seed uint64) func(*testing.T) host {
		return func(t *testing.T) host {
			h := fake.NewHost(mode, seed, func(d dayfly.Deployment) fake.Program {
				code := func(n int) *int { return &n }
				switch program(d) {
				case badBuild:
					return fake.Program{BuildFails: "no such thing"}
				case crashing:
					return fake.Program{Lines: []string{"giving up"}, Exit: code(3)}
				case job:
					return fake.Program{Exit: code(0)}
				}
				return fake.Program{}
			})
			t.Cleanup(h.Close)
			open := func() runner.Runner { return fake.New(h, runner.Hooks{}) }
			if mode == fake.Single {
				return host{open: open}
			}
			return host{open: open, move: func(i string) { h.Move(i) }}
		}
	}
	return []kind{
		{"single instances", inMemory(fake.Single, 1)},
		{"replicas", inMemory(fake.Replicas, 1)},
		{"replicas, another order", inMemory(fake.Replicas, 2)},
		{"local processes", func(t *testing.T) host {
			dir := t.TempDir()
			open := func() runner.Runner {
				r, err := local.New(context.Background(), local.Config{
					Dir: dir, ClusterID: "cluster-" + dir, NodeID: "node", Trees: trees{}, Logger: slog.New(slog.DiscardHandler),
				})
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			t.Cleanup(func() {
				r := open()
				defer r.Close()
				all, err := r.Observe(context.Background())
				if err != nil {
					t.Error(err)
				}
				for _, o := range all {
					if err := r.Remove(context.Background(), o.DeploymentID); err != nil {
						t.Error(err)
					}
				}
				builds, err := filepath.Glob(filepath.Join(dir, "builds", "*"))
				for _, b := range builds {
					if err := os.Chmod(b, 0o755); err != nil {
						t.Error(err)
					}
				}
				if err != nil {
					t.Error(err)
				}
			})
			return host{open: open}
		}},
	}
}

// trees writes nothing: the programs are this binary.
type trees struct{}

func (trees) Worktree(context.Context, dayfly.Deployment, string) error { return nil }

func program(d dayfly.Deployment) string {
	if n := len(d.Definition.Build); n > 0 {
		return d.Definition.Build[0][2]
	}
	return d.Definition.Run[2]
}

// asked stands for package control where a test needs it.
type asked struct {
	refresh func(name string) error
	expire  func() ([]string, error)
	follow  func(project string, heads map[string]dayfly.Heads) (again bool, err error)
	problem func(name, problem string)
}

func (a asked) Refresh(_ context.Context, name string, _ map[string]dayfly.Heads) error {
	if a.refresh == nil {
		return nil
	}
	return a.refresh(name)
}

func (asked) MayBeThere(string) bool { return false }

func (asked) ProjectRepos(p dayfly.Project) []string { return []string{p.Home()} }

func (a asked) FollowProject(_ context.Context, name string, heads map[string]dayfly.Heads) (bool, error) {
	if a.follow == nil {
		return false, nil
	}
	return a.follow(name, heads)
}

func (a asked) ReportProblem(_ context.Context, name, problem string) error {
	if a.problem != nil {
		a.problem(name, problem)
	}
	return nil
}

func (a asked) Expire(context.Context) ([]string, error) {
	if a.expire == nil {
		return nil, nil
	}
	return a.expire()
}

// quiet is a world in which no repository changes.
type quiet struct{}

func (quiet) Fingerprint(string) (string, bool) { return "", true }
func (quiet) Heads(context.Context, string, string) (dayfly.Heads, error) {
	return dayfly.Heads{}, nil
}

// world is a state and a reconciler that can be stopped and started.
type world struct {
	*testing.T
	host   host
	store  *registry.Store
	cache  *registry.Cache
	runner runner.Runner
	loop   *reconcile.Reconciler // on runner
	asked  asked
	news   reconcile.News

	mu    sync.Mutex
	ahead time.Duration // how far the clock has been set forward
	stop  func()
}

func newWorld(t *testing.T, k kind) *world {
	t.Helper()
	w := &world{T: t, host: k.host(t), news: quiet{}}
	w.store, w.cache = registrytest.Open(t)
	t.Cleanup(func() {
		if w.stop != nil {
			w.stop()
		}
	})
	return w
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.ahead)
}

// start runs a reconciler on a runner of its own until stop.
func (w *world) start() {
	w.Helper()
	w.runner = w.host.open()
	r := reconcile.New(reconcile.Config{
		NodeID: "node", Kind: "test", Drain: time.Second, KeepLogs: time.Hour, Poll: time.Minute,
	}, reconcile.Parts{
		Store: w.store, Cache: w.cache, Runner: w.runner, Asked: w.asked, News: w.news, Now: w.now, Logger: slog.New(slog.DiscardHandler),
	})
	w.loop = r
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { r.Run(ctx) })
	w.stop = func() {
		cancel()
		done.Wait()
		if err := w.runner.Close(); err != nil {
			w.Error(err)
		}
		w.stop = nil
	}
}

func (w *world) restart() {
	w.Helper()
	w.stop()
	w.start()
}

func (w *world) commit(ops ...registry.Op) {
	w.Helper()
	revision, err := registry.Commit(w.Context(), w.store, ops...)
	if err != nil {
		w.Fatal(err)
	}
	if err := w.cache.Wait(w.Context(), revision); err != nil {
		w.Fatal(err)
	}
}

// service is a service at a version, which is also the hash of its definition.
func service(name, kind, version string, needs map[string]dayfly.Condition) dayfly.ResolvedService {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	d := &dayfly.Definition{
		Service: name, Dir: ".", Run: dayfly.Command{exe, asService, kind}, DependsOn: needs, Job: kind == job,
		Stop: dayfly.Stop{Grace: dayfly.Duration(5 * time.Second)},
	}
	if kind == badBuild {
		d.Build, d.Run = []dayfly.Command{d.Run}, dayfly.Command{exe, asService, web}
	}
	rs := dayfly.ResolvedService{Name: name, From: dayfly.FromOwn, Version: "main", Repo: "r", Commit: version, Hash: version, Definition: d, Variables: map[string]string{}}
	if !d.Job {
		rs.Definition.Port, rs.Definition.Routes = 80, []dayfly.PathRoute{{Path: "/"}}
		rs.Hosts = []string{name + "-e.localhost"}
		rs.Address = "127.1.2." + fmt.Sprint(len(name))
	}
	return rs
}

// chain is a job, a backend that needs it, and a frontend that needs the backend.
func chain(version string) []dayfly.ResolvedService {
	return []dayfly.ResolvedService{
		service("frontend", web, version, map[string]dayfly.Condition{"backend": dayfly.ConditionHealthy}),
		service("backend", web, version, map[string]dayfly.Condition{"migrate": dayfly.ConditionCompleted}),
		service("migrate", job, version, nil),
	}
}

// create asks for an environment named e, as package control does.
func (w *world) create(services ...dayfly.ResolvedService) {
	w.Helper()
	rec := dayfly.EnvironmentRecord{Format: dayfly.Format, ID: dayfly.NewID(), CreatedAt: w.now(), RenewedAt: w.now(), Spec: dayfly.EnvironmentSpec{Name: "e", Project: "p"}}
	ops := []registry.Op{
		registry.Create(registry.Environments, "e", rec),
		registry.Create(registry.Resolutions, "e", dayfly.Resolution{Format: dayfly.Format, Environment: rec.ID, Services: services}),
		registry.Create(registry.Releases, "e", release.State{Format: dayfly.Format, Services: map[string][]release.Target{}}),
	}
	for _, rs := range services {
		for _, host := range rs.Hosts {
			ops = append(ops, registry.Create(registry.Hosts, host, registry.HostClaim{Environment: rec.ID, Name: "e"}))
		}
		if rs.Address != "" {
			ops = append(ops, registry.Create(registry.Addresses, rs.Address, registry.AddressClaim{Environment: rec.ID, Service: rs.Name}))
		}
	}
	w.commit(ops...)
}

// update asks for other versions.
func (w *world) update(services ...dayfly.ResolvedService) {
	w.Helper()
	res, ok := registry.Lookup(w.cache, registry.Resolutions, "e")
	if !ok {
		w.Fatal("there is no resolution")
	}
	next := res.Value
	next.Services = services
	w.commit(registry.Update(registry.Resolutions, "e", next, res.Revision))
}

func (w *world) delete() {
	w.Helper()
	rec, ok := registry.Lookup(w.cache, registry.Environments, "e")
	if !ok {
		w.Fatal("there is no environment")
	}
	next := rec.Value
	next.Deleting = true
	w.commit(registry.Update(registry.Environments, "e", next, rec.Revision))
}

// gather gives all that the state has of the environment.
func (w *world) gather() (status.Input, bool) {
	rec, ok := registry.Lookup(w.cache, registry.Environments, "e")
	if !ok {
		return status.Input{}, false
	}
	in := registry.Gather(w.cache, rec)
	in.URL = func(host string) string { return host }
	return in, true
}

func (w *world) view() dayfly.Environment {
	in, ok := w.gather()
	if !ok {
		return dayfly.Environment{}
	}
	return status.View(in)
}

// until waits until the state is as wanted, looking with each change.
func (w *world) until(what string, is func() bool) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	defer cancel()
	changes := w.cache.Changes(ctx)
	if is() {
		return
	}
	for range changes {
		if is() {
			return
		}
	}
	w.Fatalf("never %s: %+v\n%s", what, w.view(), strings.Join(w.events(), "\n"))
}

// versions waits until the environment is ready with these versions and nothing else is left.
func (w *world) versions(phase dayfly.Phase, version string, deployments int) {
	w.Helper()
	w.until(fmt.Sprintf("%s at %s with %d deployments", phase, version, deployments), func() bool {
		in, ok := w.gather()
		if !ok || status.View(in).Phase != phase || len(in.Deployments) != deployments {
			return false
		}
		for _, targets := range in.Release.Services {
			if len(targets) != 1 || targets[0].Version != version {
				return false
			}
		}
		return len(in.Release.Services) > 0
	})
}

func (w *world) events() (all []string) {
	rec, ok := registry.Lookup(w.cache, registry.Environments, "e")
	id := rec.Value.ID
	if !ok {
		for e := range registry.EndedNamed(w.cache, "e") {
			id = e.Value.ID
		}
	}
	events, err := registry.Events(context.WithoutCancel(w.Context()), w.store, id, 0)
	if err != nil {
		w.Error(err)
	}
	for _, e := range events {
		all = append(all, e.Message)
	}
	return all
}

// told waits until an event says what is wanted: events are written after what they tell of.
func (w *world) told(is func(string) bool) {
	w.Helper()
	for deadline := time.Now().Add(30 * time.Second); !slices.ContainsFunc(w.events(), is); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("no event says it: %q", w.events())
		}
	}
}

// instances gives what runs now, by service.
func (w *world) instances() map[string][]dayfly.Instance {
	in, _ := w.gather()
	found := map[string][]dayfly.Instance{}
	for _, d := range in.Deployments {
		found[d.Key.Service] = append(found[d.Key.Service], in.Observed[d.ID].Instances...)
	}
	return found
}

// there gives what the runner has, whoever wants it.
func (w *world) there() (ids []string) {
	w.Helper()
	all, err := w.runner.Observe(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	for _, o := range all {
		ids = append(ids, o.DeploymentID)
	}
	return ids
}

// noGap watches until the returned function is called, and reports whenever a service
// that had been served no longer has a healthy instance behind it.
func (w *world) noGap() (end func()) {
	ctx, cancel := context.WithCancel(w.Context())
	changes := w.cache.Changes(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		for range changes {
			in, ok := w.gather()
			if !ok {
				continue
			}
			for service, targets := range in.Release.Services {
				serves := slices.ContainsFunc(targets, func(t release.Target) bool {
					st := in.Observed[t.Deployment]
					return status.Healthy(st) > 0 || st.Phase == dayfly.DeploymentCompleted
				})
				if !serves {
					w.Errorf("nobody serves %s: %+v", service, targets)
				}
			}
		}
	})
	return func() {
		cancel()
		done.Wait()
	}
}
