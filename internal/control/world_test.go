package control_test

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/control"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/registry/registrytest"
	"github.com/dayfly-dev/dayfly/internal/resolve"
	"github.com/dayfly-dev/dayfly/internal/runner"
	"github.com/dayfly-dev/dayfly/internal/vault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	hour = dayfly.Duration(time.Hour)
	day  = 24 * hour
)

// The repository of most tests.
const shopRepo = "https://git.example/acme/shop"

// world is a Control on a state of its own, in which repositories and time are as
// the test says.
type world struct {
	*testing.T
	*control.Control
	store *registry.Store
	cache *registry.Cache
	git   *repositories
	logs  *printed
	clock *clock
	again func() *control.Control // another one on the same state
}

func defaults() control.Config {
	return control.Config{
		NamePattern: "{project}-{branch}", Keep: 5 * day, MaxKeep: 30 * day, KeepLogs: time.Hour,
		Runner: "local", NodeID: "node1",
		PublicURL:   func(host string) string { return "http://" + host },
		InternalURL: func(address string) string { return "http://" + address },
	}
}

// start makes a world; change says what its server's flags say.
func start(t *testing.T, change ...func(*control.Config)) *world {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	store, cache := registrytest.Open(t)
	keys, err := vault.Open(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, store: store, cache: cache, git: newRepositories(), logs: &printed{lines: map[string][]dayfly.LogLine{}},
		clock: &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}}
	config := defaults()
	for _, c := range change {
		c(&config)
	}
	w.again = func() *control.Control {
		return control.New(config, control.Parts{
			Store: store, Cache: cache, Resolver: w.git, Vault: keys, Logs: w.logs, Now: w.clock.Now, Logger: quiet,
		})
	}
	w.Control = w.again()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	first := w.Control
	go func() {
		defer close(done)
		first.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return w
}

// shop adds the usual project.
func (w *world) shop() *world {
	w.Helper()
	if _, _, err := w.CreateProject(w.Context(), dayfly.ProjectRequest{Name: "shop", Repo: shopRepo}); err != nil {
		w.Fatal(err)
	}
	return w
}

// create makes an environment of a branch.
func (w *world) create(branch string) dayfly.Environment {
	w.Helper()
	env, made, err := w.CreateEnvironment(w.Context(), branchOf("shop", branch))
	if err != nil || !made {
		w.Fatalf("%s: made %t, %v", branch, made, err)
	}
	return env
}

func branchOf(project, branch string) dayfly.EnvironmentRequest {
	return dayfly.EnvironmentRequest{Spec: dayfly.EnvironmentSpec{Project: project, Branch: branch}}
}

func (w *world) commit(ops ...registry.Op) {
	w.Helper()
	revision, err := registry.Commit(w.Context(), w.store, ops...)
	if err == nil {
		err = w.cache.Wait(w.Context(), revision)
	}
	if err != nil {
		w.Fatal(err)
	}
}

// forget removes what is left of an environment, as reconciling does in the end, and
// keeps that it was there.
func (w *world) forget(env dayfly.Environment) {
	w.Helper()
	ops := []registry.Op{
		registry.Delete(registry.Environments, env.Name), registry.Delete(registry.Resolutions, env.Name),
		registry.Delete(registry.Releases, env.Name),
		registry.Create(registry.Ended, env.ID, registry.EndedEnvironment{
			ID: env.ID, Name: env.Name, Project: env.Project, EndedAt: w.clock.Now()}),
	}
	for h := range registry.All(w.cache, registry.Hosts) {
		if h.Value.Environment == env.ID {
			ops = append(ops, registry.Delete(registry.Hosts, h.Key))
		}
	}
	for a := range registry.All(w.cache, registry.Addresses) {
		if a.Value.Environment == env.ID {
			ops = append(ops, registry.Delete(registry.Addresses, a.Key))
		}
	}
	w.commit(ops...)
}

func (w *world) record(name string) registry.Record[dayfly.EnvironmentRecord] {
	w.Helper()
	r, ok := registry.Lookup(w.cache, registry.Environments, name)
	if !ok {
		w.Fatalf("there is no environment %s", name)
	}
	return r
}

func (w *world) resolution(name string) registry.Record[dayfly.Resolution] {
	w.Helper()
	r, ok := registry.Lookup(w.cache, registry.Resolutions, name)
	if !ok {
		w.Fatalf("there is no resolution of %s", name)
	}
	return r
}

// counts says how many records of each kind there are.
func (w *world) counts() string {
	return fmt.Sprintf("%d environments, %d resolutions, %d releases, %d hosts, %d addresses, %d credentials",
		registry.Len(w.cache, registry.Environments), registry.Len(w.cache, registry.Resolutions),
		registry.Len(w.cache, registry.Releases), registry.Len(w.cache, registry.Hosts),
		registry.Len(w.cache, registry.Addresses), registry.Len(w.cache, registry.Credentials))
}

// refused checks the code of an error and that its message names some things.
func refused(t *testing.T, err error, code dayfly.Code, mentions ...string) {
	t.Helper()
	if dayfly.ErrorCode(err) != code {
		t.Fatalf("got %q (%v), want %s", dayfly.ErrorCode(err), err, code)
	}
	for _, m := range mentions {
		if !strings.Contains(err.Error(), m) {
			t.Errorf("%q does not mention %q", err, m)
		}
	}
}

// clock is a clock that stands still until it is set forward.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) forward(d dayfly.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Duration(d))
}

// repositories resolve every branch but the missing ones, to a commit that moves
// when the test says so.
type repositories struct {
	heads    map[string]dayfly.Heads   // by repository
	silent   map[string]bool           // repositories that do not answer
	repos    []string                  // of services that live elsewhere
	broken   map[string]bool           // commits whose project file is
	files    map[string][]resolve.File // of environments, by commit
	branches dayfly.BranchPatterns
	mu       sync.Mutex
	commits  map[string]string // by branch; "" is the first commit
	missing  map[string]bool
	hosts    map[string][]string // by branch: other hosts than the usual ones
	keep     dayfly.Duration
	tokens   []string // that were shown, in order
	resolved int
	expected int            // how many who resolve have yet to come
	meeting  sync.WaitGroup // where they wait for each other
}

func newRepositories() *repositories {
	return &repositories{commits: map[string]string{}, missing: map[string]bool{}, hosts: map[string][]string{}}
}

func (r *repositories) change(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	do()
}

// meet waits for the others where a test expects several at once.
func (r *repositories) meet() {
	r.mu.Lock()
	expected := r.expected > 0
	if expected {
		r.expected--
		r.meeting.Done()
	}
	r.mu.Unlock()
	if expected {
		r.meeting.Wait()
	}
}

// Resolve implements control.Resolver: two services, web with a route and api without.
func (r *repositories) Resolve(_ context.Context, in resolve.Input) (*dayfly.Resolution, error) {
	r.meet()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resolved++
	r.tokens = append(r.tokens, in.Token.Reveal())
	spec := in.Record.Spec
	if r.missing[spec.Branch] {
		return nil, dayfly.Errorf(dayfly.CodeNotFound, "there is no branch %s", spec.Branch)
	}
	res := &dayfly.Resolution{Format: dayfly.Format, Environment: in.Record.ID}
	previous := map[string]string{}
	if in.Previous != nil {
		res.Address = in.Previous.Address
		for _, rs := range in.Previous.Services {
			previous[rs.Name] = rs.Address
		}
	}
	if res.Address == "" {
		var err error
		if res.Address, err = in.Address(); err != nil {
			return nil, err
		}
	}
	commit := r.commits[spec.Branch]
	if r.heads != nil {
		if commit = r.leadsTo(in); commit == "" {
			return nil, dayfly.Errorf(dayfly.CodeNotFound, "there is no branch %s", spec.Branch)
		}
	}
	if commit == "" {
		commit = "first"
	}
	for _, name := range []string{"api", "web"} {
		if spec.Only != nil && !slices.Contains(spec.Only, name) {
			continue
		}
		rs := dayfly.ResolvedService{
			Name: name, From: dayfly.FromOwn, Version: spec.Branch, Repo: cmp.Or(in.Repo, in.Project.Home()), Commit: commit, Hash: "hash",
			Definition: &dayfly.Definition{Service: name}, Address: previous[name],
		}
		if rs.Address == "" {
			var err error
			if rs.Address, err = in.Address(); err != nil {
				return nil, err
			}
		}
		if name == "web" {
			rs.Definition.Routes = []dayfly.PathRoute{{Path: "/"}}
			rs.Hosts = r.hosts[spec.Branch]
			if rs.Hosts == nil {
				rs.Hosts = []string{spec.Name + ".localhost", "web-" + spec.Name + ".localhost"}
			}
		}
		res.Services = append(res.Services, rs)
	}
	return res, nil
}

// leadsTo finds the commit of a branch: in the repository of the project, or else where a service lives.
func (r *repositories) leadsTo(in resolve.Input) string {
	home := cmp.Or(in.Repo, in.Project.Home())
	for _, repo := range append([]string{home, in.Project.Home()}, in.Project.Repos...) {
		heads, ok := in.Heads[repo]
		if !ok {
			heads = r.heads[repo]
		}
		if commit := heads.Branches[cmp.Or(in.Record.Spec.Branch, heads.Default)]; commit != "" {
			return commit
		}
	}
	return ""
}

// Heads implements control.Resolver.
func (r *repositories) Heads(_ context.Context, repo string, _ dayfly.Secret) (dayfly.Heads, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.silent[repo] {
		return dayfly.Heads{}, dayfly.Errorf(dayfly.CodeUnavailable, "%s does not answer", repo)
	}
	if heads, ok := r.heads[repo]; ok {
		heads.Branches = maps.Clone(heads.Branches)
		return heads, nil
	}
	if r.heads != nil {
		return dayfly.Heads{}, nil
	}
	return dayfly.Heads{Default: "main", Branches: map[string]string{"main": "first"}}, nil
}

// ProjectAt implements control.Resolver.
func (r *repositories) ProjectAt(ctx context.Context, repo string, token dayfly.Secret, branch, commit string) (resolve.ProjectInfo, error) {
	r.mu.Lock()
	broken := r.broken[commit]
	r.mu.Unlock()
	if broken {
		return resolve.ProjectInfo{}, dayfly.Invalid(dayfly.Problem{File: "compose.yaml", Line: 3, Column: 1, Message: "is broken"})
	}
	info, err := r.Project(ctx, repo, token)
	info.DefaultBranch, info.Commit = branch, commit
	return info, err
}

// EnvironmentFiles implements control.Resolver.
func (r *repositories) EnvironmentFiles(_ context.Context, _ string, _ dayfly.Secret, commit string) ([]resolve.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.files[commit], nil
}

// Project implements control.Resolver.
func (r *repositories) Project(_ context.Context, repo string, _ dayfly.Secret) (resolve.ProjectInfo, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if strings.HasSuffix(repo, "/nothing") {
		return resolve.ProjectInfo{}, dayfly.Errorf(dayfly.CodeNotFound, "there is no repository %s", repo)
	}
	return resolve.ProjectInfo{Name: repo[strings.LastIndex(repo, "/")+1:], DefaultBranch: "main", Keep: r.keep, Branches: r.branches, Repos: r.repos}, nil
}

// CleanRepo implements control.Resolver.
func (r *repositories) CleanRepo(repo string) (string, dayfly.Secret, error) {
	if !strings.HasPrefix(repo, "https://") {
		return "", dayfly.Secret{}, dayfly.Invalid(dayfly.Problem{Field: "repo", Message: "is no URL"})
	}
	token, rest, found := strings.Cut(strings.TrimPrefix(repo, "https://"), "@")
	if !found {
		return repo, dayfly.Secret{}, nil
	}
	return "https://" + rest, dayfly.NewSecret(token), nil
}

// printed is what deployments printed.
type printed struct {
	mu    sync.Mutex
	lines map[string][]dayfly.LogLine // by deployment
}

func (p *printed) add(deployment string, lines ...dayfly.LogLine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines[deployment] = append(p.lines[deployment], lines...)
}

// Logs implements control.Logs.
func (p *printed) Logs(ctx context.Context, deployment string, o runner.LogOptions) iter.Seq2[dayfly.LogLine, error] {
	return func(yield func(dayfly.LogLine, error) bool) {
		p.mu.Lock()
		lines := slices.Clone(p.lines[deployment])
		p.mu.Unlock()
		if o.Tail > 0 && len(lines) > o.Tail {
			lines = lines[len(lines)-o.Tail:]
		}
		for _, line := range lines {
			if !line.Time.Before(o.Since) && !yield(line, nil) {
				return
			}
		}
		if o.Follow {
			<-ctx.Done()
		}
	}
}

// filesAt gives one file of environments at a commit.
func filesAt(commit, name, text string) map[string][]resolve.File {
	return map[string][]resolve.File{commit: {{Name: name, Data: []byte(text)}}}
}
