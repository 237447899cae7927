// Package apitest has a control plane that lives in memory, for tests of the API and of
// what calls it. Nothing is built or started: tests say what happens.
package apitest

import (
	"context"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api"
)

// Handler makes the API of a control plane.
func Handler(c *Control) http.Handler {
	return api.New(api.Config{Control: c, Version: "v1.2.3", Hosts: []string{"dayfly.example.org"}, Doctor: c.doctor, Retire: c.retire, Logger: slog.New(slog.DiscardHandler)})
}

// DatabaseControl is the part of api.Control that is about databases.
type DatabaseControl = api.Databases

// Control implements api.Control in memory. The zero value is empty and can be used.
type Control struct {
	// DatabaseControl is what tests of databases bring along.
	DatabaseControl
	// OnCreate is called with an environment that was just asked for and not seen by
	// anybody else yet.
	OnCreate func(*dayfly.Environment)
	// DeleteAtOnce lets environments be gone as soon as they are deleted; otherwise they
	// stay, deleting, until Remove.
	DeleteAtOnce bool

	mu          sync.Mutex
	changed     chan struct{} // closed by the next change
	fail        error
	projects    []dayfly.Project
	entries     map[string]*entry
	requests    []dayfly.EnvironmentRequest
	patches     []dayfly.EnvironmentPatch
	run         dayfly.TestRun
	findings    []dayfly.Finding
	propagation dayfly.Propagation
	departing   []dayfly.Departure
	tokens      []dayfly.Token // whose secrets are "secret-of-" and their names
	registered  map[[2]string]dayfly.RegistrationRequest
	routes      []dayfly.Route
	next        int64
}

// entry is all that is known of an environment.
type entry struct {
	env    dayfly.Environment
	spec   dayfly.EnvironmentSpec
	origin string
	events []dayfly.Event
	lines  []dayfly.LogLine
	gone   bool
}

// Fail makes every call answer err from now on; nil ends that.
func (c *Control) Fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = err
}

// Add puts an environment there, as it is, and says what was asked for.
func (c *Control) Add(env dayfly.Environment, spec dayfly.EnvironmentSpec) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(env, spec)
}

// Change changes an environment and raises its revision.
func (c *Control) Change(name string, change func(*dayfly.Environment)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[name]
	change(&e.env)
	e.env.Revision++
	c.tell()
}

// Remove lets an environment be gone; its events and lines are kept.
func (c *Control) Remove(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries[name].gone = true
	c.tell()
}

// Happen adds an event to an environment and gives it the next number.
func (c *Control) Happen(name string, event dayfly.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	event.ID, event.Environment = c.next, name
	e := c.entries[name]
	e.events = append(e.events, event)
	c.tell()
}

// Print adds lines to the log of an environment.
func (c *Control) Print(name string, lines ...dayfly.LogLine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[name]
	e.lines = append(e.lines, lines...)
	c.tell()
}

// TestEnds says how test jobs end.
func (c *Control) TestEnds(run dayfly.TestRun) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.run = run
}

// Requests are the requests for environments that came so far.
func (c *Control) Requests() []dayfly.EnvironmentRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// Patches are the changes of environments that came so far.
func (c *Control) Patches() []dayfly.EnvironmentPatch {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.patches)
}

// Names are the names of all environments, sorted.
func (c *Control) Names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.names()
}

// Origin is the file that an environment belongs to.
func (c *Control) Origin(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entries[name].origin
}

func (c *Control) names() []string {
	var names []string
	for name, e := range c.entries {
		if !e.gone {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (c *Control) put(env dayfly.Environment, spec dayfly.EnvironmentSpec) *entry {
	if c.entries == nil {
		c.entries = map[string]*entry{}
	}
	e := &entry{env: env, spec: spec}
	c.entries[env.Name] = e
	c.tell()
	return e
}

// tell wakes everybody who waits.
func (c *Control) tell() {
	if c.changed != nil {
		close(c.changed)
	}
	c.changed = make(chan struct{})
}

// news is closed by the next change.
func (c *Control) news() <-chan struct{} {
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return c.changed
}

// find gives an environment by name or id.
func (c *Control) find(name string, gone bool) (*entry, error) {
	if c.fail != nil {
		return nil, c.fail
	}
	for _, e := range c.entries {
		if (e.env.Name == name || e.env.ID == name) && (gone || !e.gone) {
			return e, nil
		}
	}
	return nil, dayfly.Errorf(dayfly.CodeNotFound, "there is no environment %q", name)
}

// CreateProject implements api.Control.
func (c *Control) CreateProject(_ context.Context, r dayfly.ProjectRequest) (dayfly.Project, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return dayfly.Project{}, false, c.fail
	}
	for _, p := range c.projects {
		if p.Name == r.Name {
			return p, false, nil
		}
	}
	p := dayfly.Project{ID: "id-" + r.Name, Name: r.Name, Repo: r.Repo, CreatedAt: time.Now(), Revision: 1}
	c.projects = append(c.projects, p)
	return p, true, nil
}

// Projects implements api.Control.
func (c *Control) Projects(context.Context) ([]dayfly.Project, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.projects), c.fail
}

// NewHookSecret implements api.Control.
func (c *Control) NewHookSecret(ctx context.Context, name string) (dayfly.Secret, error) {
	_, err := c.Project(ctx, name)
	return dayfly.NewSecret("whsec_c2VjcmV0"), err
}

// ReceiveHook implements api.Control: the signature has to be "good".
func (c *Control) ReceiveHook(_ context.Context, h dayfly.Hook) ([]dayfly.HookResult, error) {
	if h.Signature != "good" {
		return nil, dayfly.Errorf(dayfly.CodeUnauthorized, "no project of this repository knows the signature")
	}
	return []dayfly.HookResult{{Project: "p", Branch: strings.TrimPrefix(h.Ref, "refs/heads/"), Result: "followed"}}, nil
}

// ProjectEvents implements api.Control.
func (c *Control) ProjectEvents(ctx context.Context, name string) ([]dayfly.Event, error) {
	if _, err := c.Project(ctx, name); err != nil {
		return nil, err
	}
	return []dayfly.Event{{ID: 1, Kind: dayfly.EventWarning, Reason: "branch-skipped", Message: "the branch x is no environment"}}, nil
}

// Project implements api.Control.
func (c *Control) Project(_ context.Context, name string) (dayfly.Project, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return dayfly.Project{}, c.fail
	}
	for _, p := range c.projects {
		if p.Name == name || p.ID == name {
			return p, nil
		}
	}
	return dayfly.Project{}, dayfly.Errorf(dayfly.CodeNotFound, "there is no project %q", name)
}

// DeleteProject implements api.Control.
func (c *Control) DeleteProject(ctx context.Context, name string) error {
	p, err := c.Project(ctx, name)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.projects = slices.DeleteFunc(c.projects, func(other dayfly.Project) bool { return other.ID == p.ID })
	return nil
}

// made is what becomes of a wish.
func made(spec dayfly.EnvironmentSpec) dayfly.Environment {
	expires := time.Now().Add(time.Hour)
	return dayfly.Environment{
		ID: "id-" + spec.Name, Name: spec.Name, Project: spec.Project, Branch: spec.Branch, Base: spec.Base,
		Phase: dayfly.PhasePending, URLs: map[string]string{}, CreatedAt: time.Now(), ExpiresAt: &expires, Revision: 1,
		Services: []dayfly.EnvironmentService{}, Databases: []string{}, Missing: []dayfly.Missing{},
	}
}

// CreateEnvironment implements api.Control.
func (c *Control) CreateEnvironment(_ context.Context, r dayfly.EnvironmentRequest) (dayfly.Environment, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return dayfly.Environment{}, false, c.fail
	}
	c.requests = append(c.requests, r)
	if r.Spec.Name == "" {
		r.Spec.Name = dayfly.EnvironmentName("{project}-{branch}", r.Spec.Project, r.Spec.Branch)
	}
	if e, err := c.find(r.Spec.Name, false); err == nil {
		if e.spec.Branch != r.Spec.Branch {
			return dayfly.Environment{}, false, dayfly.Errorf(dayfly.CodeConflict, "environment %s is there already, of another branch", r.Spec.Name)
		}
		return e.env, false, nil
	}
	env := made(r.Spec)
	if c.OnCreate != nil {
		c.OnCreate(&env)
	}
	return c.put(env, r.Spec).env, true, nil
}

// PutEnvironment implements api.Control.
func (c *Control) PutEnvironment(_ context.Context, name string, spec dayfly.EnvironmentSpec, origin string, ifMatch int64) (dayfly.Environment, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return dayfly.Environment{}, false, c.fail
	}
	if spec.Name == "" {
		spec.Name = name
	}
	e, err := c.find(name, false)
	if err == nil {
		if reflect.DeepEqual(e.spec, spec) && e.origin == origin {
			return e.env, false, nil
		}
		if err := matches(e, ifMatch); err != nil {
			return dayfly.Environment{}, false, err
		}
		e.spec, e.origin, e.env.Branch = spec, origin, spec.Branch
		e.env.Revision++
		c.tell()
		return e.env, false, nil
	}
	env := made(spec)
	if c.OnCreate != nil {
		c.OnCreate(&env)
	}
	e = c.put(env, spec)
	e.origin = origin
	return e.env, true, nil
}

func matches(e *entry, ifMatch int64) error {
	if ifMatch != 0 && ifMatch != e.env.Revision {
		return dayfly.Errorf(dayfly.CodeConflict, "environment %s was changed meanwhile: it has revision %d", e.env.Name, e.env.Revision)
	}
	return nil
}

// PatchEnvironment implements api.Control.
func (c *Control) PatchEnvironment(_ context.Context, name string, patch dayfly.EnvironmentPatch, ifMatch int64) (dayfly.Environment, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, err := c.find(name, false)
	if err != nil {
		return dayfly.Environment{}, err
	}
	if err := matches(e, ifMatch); err != nil {
		return dayfly.Environment{}, err
	}
	c.patches = append(c.patches, patch)
	if patch.ExtendBy != nil {
		e.env.ExpiresAt = nil
		if *patch.ExtendBy != dayfly.Forever {
			expires := time.Now().Add(time.Duration(*patch.ExtendBy))
			e.env.ExpiresAt = &expires
		}
	}
	e.env.Revision++
	c.tell()
	return e.env, nil
}

// DeleteEnvironment implements api.Control. Without force, what another one has as its
// base is refused.
func (c *Control) DeleteEnvironment(_ context.Context, name string, o dayfly.DeleteOptions) (dayfly.Environment, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, err := c.find(name, false)
	if err != nil {
		return dayfly.Environment{}, err
	}
	for _, other := range c.entries {
		if other.env.Base == e.env.Name && !other.gone && !o.Force {
			return dayfly.Environment{}, dayfly.Errorf(dayfly.CodeConflict, "%s borrows from %s: delete with --force", other.env.Name, e.env.Name)
		}
	}
	e.env.Phase = dayfly.PhaseDeleting
	e.env.Revision++
	e.gone = c.DeleteAtOnce
	c.tell()
	return e.env, nil
}

// defaultPage is how many environments a page has when nobody says.
const defaultPage = 3

// Environments implements api.Control.
func (c *Control) Environments(_ context.Context, f dayfly.EnvironmentFilter) (list []dayfly.Environment, next string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return nil, "", c.fail
	}
	limit := f.Limit
	if limit == 0 {
		limit = defaultPage
	}
	for _, name := range c.names() {
		env := c.entries[name].env
		switch {
		case f.Project != "" && env.Project != f.Project, name <= f.After:
		case len(list) == limit:
			return list, list[limit-1].Name, nil
		default:
			list = append(list, env)
		}
	}
	return list, "", nil
}

// Environment implements api.Control.
func (c *Control) Environment(_ context.Context, name string) (dayfly.Environment, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, err := c.find(name, false)
	if err != nil {
		return dayfly.Environment{}, err
	}
	return e.env, nil
}

// WaitEnvironment implements api.Control.
func (c *Control) WaitEnvironment(ctx context.Context, name string, done func(dayfly.Environment) bool) (dayfly.Environment, error) {
	for {
		c.mu.Lock()
		e, err := c.find(name, false)
		if err != nil {
			c.mu.Unlock()
			return dayfly.Environment{}, err
		}
		env, news := e.env, c.news()
		c.mu.Unlock()
		if done(env) {
			return env, nil
		}
		select {
		case <-ctx.Done():
			return env, ctx.Err()
		case <-news:
		}
	}
}

// Spec implements api.Control.
func (c *Control) Spec(_ context.Context, name string) (dayfly.EnvironmentSpec, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, err := c.find(name, false)
	if err != nil {
		return dayfly.EnvironmentSpec{}, err
	}
	return e.spec, nil
}

// Propagation implements api.Control.
func (c *Control) Propagation(_ context.Context, name string) (dayfly.Propagation, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, err := c.find(name, false)
	if err != nil {
		return dayfly.Propagation{}, err
	}
	p := c.propagation
	p.Environment, p.Project = e.env.Name, e.env.Project
	return p, nil
}

// SetPropagation sets what is said of the calls for any environment.
func (c *Control) SetPropagation(p dayfly.Propagation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.propagation = p
}

// Events implements api.Control.
func (c *Control) Events(ctx context.Context, name string, o dayfly.EventOptions) iter.Seq2[dayfly.Event, error] {
	after := o.After
	return follow(ctx, c, name, o.Follow, o.Deleted, func(e *entry) (found []dayfly.Event) {
		for _, event := range e.events {
			if event.ID > after {
				found, after = append(found, event), event.ID
			}
		}
		return found
	})
}

// Logs implements api.Control.
func (c *Control) Logs(ctx context.Context, name string, q dayfly.LogQuery) iter.Seq2[dayfly.LogLine, error] {
	given := int(q.After[name]["run"])
	return follow(ctx, c, name, q.Follow, q.Deleted, func(e *entry) (found []dayfly.LogLine) {
		first := given == 0
		for n, line := range e.lines[given:] {
			line.Next = dayfly.LogPosition{Deployment: name, Source: "run", Offset: int64(given + n + 1)}
			if (q.Service == "" || line.Service == q.Service) && (q.Since.IsZero() || line.Time.After(q.Since)) {
				found = append(found, line)
			}
		}
		given = len(e.lines)
		if first && q.Tail > 0 && len(found) > q.Tail {
			found = found[len(found)-q.Tail:]
		}
		return found
	})
}

// follow gives what take finds, and with more goes on until the environment is gone.
func follow[T any](ctx context.Context, c *Control, name string, more, gone bool, take func(*entry) []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		c.mu.Lock()
		e, err := c.find(name, gone)
		c.mu.Unlock()
		if err != nil {
			var zero T
			yield(zero, err)
			return
		}
		for {
			c.mu.Lock()
			found, ended, news := take(e), e.gone, c.news()
			c.mu.Unlock()
			for _, item := range found {
				if !yield(item, nil) {
					return
				}
			}
			if !more || ended {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-news:
			}
		}
	}
}

// Test implements api.Control.
func (c *Control) Test(_ context.Context, name, job string) (dayfly.TestRun, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.find(name, false); err != nil {
		return dayfly.TestRun{}, err
	}
	run := c.run
	if job != "" {
		run.Job = job
	}
	return run, nil
}

// Services implements api.Control.
func (c *Control) Services(context.Context) ([]dayfly.ServiceInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[string]*dayfly.ServiceInfo{}
	for _, name := range c.names() {
		for _, s := range c.entries[name].env.Services {
			if found[s.Name] == nil {
				found[s.Name] = &dayfly.ServiceInfo{Name: s.Name, Project: c.entries[name].env.Project}
			}
			found[s.Name].Environments = append(found[s.Name].Environments, name)
		}
	}
	var list []dayfly.ServiceInfo
	for _, name := range slices.Sorted(maps.Keys(found)) {
		list = append(list, *found[name])
	}
	return list, c.fail
}

// Instances implements api.Control. There are none, as nothing runs.
func (c *Control) Instances(ctx context.Context, service string) ([]dayfly.InstanceInfo, error) {
	services, err := c.Services(ctx)
	if err == nil && !slices.ContainsFunc(services, func(s dayfly.ServiceInfo) bool { return strings.EqualFold(s.Name, service) }) {
		err = dayfly.Errorf(dayfly.CodeNotFound, "there is no service %q", service)
	}
	return nil, err
}

// Find says what an examination of the host finds.
func (c *Control) Find(findings ...dayfly.Finding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.findings = findings
}

func (c *Control) doctor(context.Context) []dayfly.Finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.findings)
}

// Depart says what goes by itself.
func (c *Control) Depart(list ...dayfly.Departure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.departing = list
}

func (c *Control) retire(context.Context) ([]dayfly.Departure, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.departing), c.fail
}

// Ready implements api.Control.
func (c *Control) Ready(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fail
}
