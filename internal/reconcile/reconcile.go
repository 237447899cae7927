// Package reconcile makes what is observed like what is wanted: it watches the
// state, observes the runner, plans, and carries the plan out. It is driven by
// levels, not by edges: every pass looks at everything its object consists of, so
// a pass that was missed, repeated or cut short by a crash does no harm.
//
// Two kinds of objects have a worker of their own: environments, reconciled by
// one elected server, and deployments, reconciled by the node they belong to.
package reconcile

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/runner"
)

// Asked is what the reconciler asks of package control.
type Asked interface {
	// Refresh resolves an environment again and writes what changed.
	Refresh(ctx context.Context, name string, heads map[string]dayfly.Heads) error
	// ProjectRepos gives the repositories whose branches concern a project.
	ProjectRepos(p dayfly.Project) []string
	// FollowProject brings a project in line with its repositories, and says whether it has to be
	// asked again in a while although nothing changes.
	FollowProject(ctx context.Context, name string, heads map[string]dayfly.Heads) (again bool, err error)
	// MayBeThere says whether something that an environment missed may be there by now. It asks nobody.
	MayBeThere(name string) bool
	// ReportProblem writes why that failed.
	ReportProblem(ctx context.Context, name, problem string) error
	// Expire ends the environments whose life is over and says which.
	Expire(ctx context.Context) (ended []string, err error)
}

// Config is what a Reconciler is told by flags.
type Config struct {
	NodeID   string
	Kind     string        // of runner, for the deployments made here
	Drain    time.Duration // how long the requests of a replaced version may take
	KeepLogs time.Duration // logs and events of what is gone
	Poll     time.Duration // between looks at remote repositories
}

// Parts is what a Reconciler works with.
type Parts struct {
	Store  *registry.Store
	Cache  *registry.Cache
	Runner runner.Runner
	Asked  Asked
	News   News
	// Keeper keeps the databases of this node, which are Owner's; nil = there are none.
	Keeper database.Keeper
	Owner  DatabaseOwner
	// Sweepers are called one after the other, by one goroutine.
	Sweepers []Sweeper
	Now      func() time.Time
	Logger   *slog.Logger
}

// Sweeper takes away what exists on this host and belongs to nothing, once it has been
// noticed for as long as grace, and returns what it has noticed and left. Known says whether a
// deployment, or its logs, are still wanted.
type Sweeper interface {
	Sweep(ctx context.Context, grace time.Duration, known func(deploymentID string) bool) ([]dayfly.Leftover, error)
}

// drainDeleted is how long the requests of a deleted environment may take.
const drainDeleted = 5 * time.Second

// Reconciler holds the workers.
type Reconciler struct {
	Config
	Parts
	environments *worker
	deployments  *worker
	kept         *databases // nil = there are none

	mu      sync.Mutex
	orphans map[string]time.Time    // since when a deployment without a record is known
	jobs    map[string]*job         // by deployment
	retries *retries                // of jobs
	asked   map[string]int          // instances, by deployment, as last asked of the runner
	phases  map[string]dayfly.Phase // of environments, as last told in an event
	heldUp  map[string]string       // for whom the end of environments waits, as last told in an event
	left    []dayfly.Leftover       // as last noticed by the sweepers
	unused  map[string]time.Time    // since when nobody refers to a shared deployment, as far as this server looks after that

	telling    *telling
	background sync.WaitGroup
}

// New makes a Reconciler; Run starts it.
func New(config Config, parts Parts) *Reconciler {
	r := &Reconciler{Config: config, Parts: parts, orphans: map[string]time.Time{}, jobs: map[string]*job{}, retries: newRetries(), asked: map[string]int{}, phases: map[string]dayfly.Phase{}, heldUp: map[string]string{}, telling: newTelling()}
	r.environments = newWorker("environment", r.environment, parts.Logger)
	r.deployments = newWorker("deployment", r.deployment, parts.Logger)
	if r.Keeper != nil {
		r.kept = newDatabases(r)
	}
	return r
}

// Run reconciles until ctx ends, and returns when nothing of it goes on any more.
// What runs is left running.
func (r *Reconciler) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { r.watch(ctx) })
	all.Go(func() { r.sweepLoop(ctx) })
	if r.kept != nil {
		all.Go(func() { r.kept.run(ctx) })
	}
	if r.home() != "" {
		all.Go(func() { r.keep(ctx) })
	}
	all.Go(func() {
		// The elected server looks after what belongs to no node.
		err := r.Store.Lead(ctx, "environments", r.NodeID, func(ctx context.Context) error {
			r.lead(ctx)
			return nil
		})
		if err != nil && ctx.Err() == nil {
			r.Logger.Error("this server no longer stands for election", "error", err)
		}
	})
	all.Wait()
}

// home says to which node the deployments made here belong: this one, or none, where
// the runner is a cluster of its own.
func (r *Reconciler) home() string {
	if r.Runner.Capabilities().Node {
		return r.NodeID
	}
	return ""
}

// keep reconciles the deployments of this server's runner until ctx ends.
func (r *Reconciler) keep(ctx context.Context) {
	var all sync.WaitGroup
	changes := r.Runner.Changes(ctx)
	all.Go(func() { r.deployments.run(ctx, 4, func() { r.adopt(ctx) }) })
	all.Go(func() {
		for id := range changes {
			r.deployments.add(id)
		}
	})
	all.Go(func() { r.pruneLoop(ctx) })
	all.Wait()
	r.background.Wait()
}

// lead reconciles environments, and deployments that belong to no node, until ctx ends
// or another server is elected.
func (r *Reconciler) lead(ctx context.Context) {
	var all sync.WaitGroup
	if r.home() == "" {
		all.Go(func() { r.keep(ctx) })
	}
	all.Go(func() {
		r.environments.run(ctx, 4, func() {
			for e := range registry.All(r.Cache, registry.Environments) {
				r.environments.add(e.Key)
			}
		})
	})
	all.Go(func() { r.follow(ctx) })
	all.Go(func() { r.shareLoop(ctx) })
	all.Go(func() { r.missingLoop(ctx) })
	all.Go(func() { r.expireLoop(ctx) })
	all.Wait()
}

// adopt brings every deployment of this node, and whatever the runner has that no
// record knows, before its worker once.
func (r *Reconciler) adopt(ctx context.Context) {
	for d := range registry.All(r.Cache, registry.Deployments) {
		r.deployments.add(d.Key)
	}
	found, err := r.Runner.Observe(ctx)
	if err != nil {
		r.Logger.Error("the runner cannot be observed", "error", err)
	}
	for _, o := range found {
		if _, ok := registry.Lookup(r.Cache, registry.Deployments, o.DeploymentID); !ok {
			r.mu.Lock()
			r.orphans[o.DeploymentID] = time.Time{} // left by a crash: no grace
			r.mu.Unlock()
		}
		r.deployments.add(o.DeploymentID)
	}
}

// watch passes changes of the state to the workers that they concern.
func (r *Reconciler) watch(ctx context.Context) {
	// Whom the changes of a deployment concern, also when its record is gone.
	owner := map[string]string{}                // environment by deployment
	shared := map[string]dayfly.DeploymentKey{} // what environments share
	note := func(d dayfly.Deployment) {
		if d.Shared() {
			shared[d.ID] = d.Key
		} else {
			owner[d.ID] = d.Environment
		}
	}
	for d := range registry.All(r.Cache, registry.Deployments) {
		note(d.Value)
	}
	databases := r.databaseChanges()
	for c := range r.Cache.Changes(ctx) {
		databases.pass(c)
		switch c.Kind {
		case registry.Environments.Name(), registry.Resolutions.Name(), registry.Releases.Name():
			r.environments.add(c.Key)
		case registry.Nodes.Name():
			for e := range registry.All(r.Cache, registry.Environments) {
				if e.Value.Deleting { // it may wait for just this server
					r.environments.add(e.Key)
				}
			}
		case registry.Deployments.Name(), registry.Observed.Name():
			if d, ok := registry.Lookup(r.Cache, registry.Deployments, c.Key); ok {
				note(d.Value)
			}
			if key, ok := shared[c.Key]; ok {
				for _, name := range registry.UsersOf(r.Cache, key) {
					r.environments.add(name)
				}
			} else if owner[c.Key] != "" {
				r.environments.add(owner[c.Key])
			}
			if c.Kind == registry.Deployments.Name() {
				r.deployments.add(c.Key)
				if c.Deleted {
					delete(owner, c.Key)
					delete(shared, c.Key)
				}
			}
		}
	}
}
