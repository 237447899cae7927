package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// DatabaseOwner is what the reconciler asks of package control about databases.
type DatabaseOwner interface {
	// CloneOf gives a database as its keeper is to make it.
	CloneOf(rec dayfly.DatabaseRecord) (database.Clone, error)
	// RevealDatabases gives the passwords of an environment's databases by what stands for them.
	RevealDatabases(environmentID string) (map[string]string, error)
	// LoadTemplate makes a version of a template, unless that is being done already.
	LoadTemplate(ctx context.Context, versionID string) error
	// StopLoad ends the making of a version that nobody wants any more.
	StopLoad(versionID string)
	// ExpireDatabases ends the databases whose time is over and says which.
	ExpireDatabases(ctx context.Context) (ended []string, err error)
}

// lookAgain is how often all databases are looked at although nothing is known to have changed.
const lookAgain = 10 * time.Second

// databases keeps the databases and templates of this node.
type databases struct {
	*Reconciler
	databases *worker
	versions  *worker

	mu      sync.Mutex
	jobs    map[string]*job
	ensured map[string]bool      // whose server this life has seen take connections
	since   map[string]time.Time // since when what no record knows is known
	retries *retries

	background sync.WaitGroup
}

func newDatabases(r *Reconciler) *databases {
	d := &databases{Reconciler: r, jobs: map[string]*job{}, ensured: map[string]bool{}, since: map[string]time.Time{}, retries: newRetries()}
	d.databases = newWorker("database", d.database, r.Logger)
	d.versions = newWorker("template version", d.version, r.Logger)
	return d
}

// run keeps them until ctx ends. What runs is left running.
func (d *databases) run(ctx context.Context) {
	var all sync.WaitGroup
	changes := d.Keeper.Changes(ctx)
	all.Go(func() { d.databases.run(ctx, 8, func() { d.adopt(ctx) }) })
	all.Go(func() { d.versions.run(ctx, 2, func() { d.adoptTemplates(ctx) }) })
	all.Go(func() {
		for id := range changes {
			d.databases.add(id)
		}
	})
	all.Go(func() { every(ctx, lookAgain, func() { d.addAll() }) })
	all.Wait()
	d.background.Wait()
}

func (d *databases) addAll() {
	for r := range registry.All(d.Cache, registry.Databases) {
		d.databases.add(r.Value.ID)
	}
	for v := range registry.All(d.Cache, registry.TemplateVersions) {
		d.versions.add(v.Key)
	}
}

// adopt brings every database, and whatever the keeper has that no record knows, before its worker once.
func (d *databases) adopt(ctx context.Context) {
	for r := range registry.All(d.Cache, registry.Databases) {
		d.databases.add(r.Value.ID)
	}
	found, err := d.Keeper.Observe(ctx)
	if err != nil {
		d.Logger.Error("the keeper of databases cannot be observed", "error", err)
	}
	for _, st := range found {
		d.left(st.ID, func() bool { _, ok := registry.DatabaseByID(d.Cache, st.ID); return ok })
		d.databases.add(st.ID)
	}
}

// left notes what a crash has left: there is no grace for it.
func (d *databases) left(id string, known func() bool) {
	if !known() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.since[id] = time.Time{}
	}
}

// grace says how long something that no record knows is still to be left alone.
func (d *databases) grace(id string) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	since, ok := d.since[id]
	if !ok {
		since = d.Now()
		d.since[id] = since
	}
	wait := since.Add(orphanGrace).Sub(d.Now())
	if wait <= 0 {
		delete(d.since, id)
	}
	return wait
}

// busy says whether a job works on id. One of another kind is cancelled: what is wanted has changed.
func (d *databases) busy(id, kind string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	j := d.jobs[id]
	if j != nil && j.kind != kind {
		j.cancel()
	}
	return j != nil
}

// running says whether a job of any kind works on id.
func (d *databases) running(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.jobs[id] != nil
}

// start runs a job in the background; its end brings its object before the worker again.
func (d *databases) start(ctx context.Context, w *worker, id, kind string, revision int64, do func(context.Context) error) {
	if wait := d.retries.wait(id, revision); wait > 0 {
		w.addAfter(id, wait)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	d.mu.Lock()
	d.jobs[id] = &job{kind, cancel}
	d.mu.Unlock()
	d.background.Go(func() {
		err := do(ctx)
		cancelled := ctx.Err() != nil
		cancel()
		d.mu.Lock()
		delete(d.jobs, id)
		d.mu.Unlock()
		switch {
		case err == nil:
			d.retries.done(id)
			w.add(id)
		case cancelled:
			w.add(id)
		case dayfly.ErrorCode(err) == dayfly.CodeConflict:
			w.addAfter(id, 10*time.Millisecond)
		default:
			d.Logger.Warn(w.kind+": "+kind+" failed; it is tried again", "id", id, "error", err)
			w.addAfter(id, d.retries.failed(id, revision, err))
		}
	})
}

// database is one pass over one database.
func (d *databases) database(ctx context.Context, id string) error {
	r, ok := registry.DatabaseByID(d.Cache, id)
	if !ok {
		return d.orphan(ctx, id)
	}
	rec := r.Value
	if rec.Node != d.NodeID {
		return nil
	}
	_, owned := registry.EnvironmentByID(d.Cache, rec.Owner)
	switch {
	case rec.Deleting || rec.Owner != "" && !owned, rec.Replaced && !d.mentioned(rec):
		if !d.busy(id, "remove") {
			d.start(ctx, d.databases, id, "remove", r.Revision, func(ctx context.Context) error { return d.remove(ctx, r) })
		}
		return nil
	}
	seen, err := d.observe(ctx, id)
	if err != nil {
		return err
	}
	st, known := registry.Lookup(d.Cache, registry.DatabaseStatuses, id)
	switch {
	case known && st.Value.Resets < rec.Resets:
		if !d.busy(id, "reset") {
			d.start(ctx, d.databases, id, "reset", r.Revision, func(ctx context.Context) error { return d.make(ctx, r, true) })
		}
		return nil
	case seen == nil || !d.isEnsured(id):
		if !d.busy(id, "ensure") {
			d.start(ctx, d.databases, id, "ensure", r.Revision, func(ctx context.Context) error { return d.make(ctx, r, false) })
		}
		return nil
	case d.running(id):
		return nil // it says itself what came of it
	}
	return d.publish(ctx, r, dayfly.DatabasePhase(seen.Phase), seen.Message, rec.Resets)
}

// mentioned says whether a deployment still has the address of a database that was replaced.
func (d *databases) mentioned(rec dayfly.DatabaseRecord) bool {
	secret := dayfly.DatabaseSecret(rec.ID)
	for dep := range registry.DeploymentsOf(d.Cache, rec.Owner) {
		for _, v := range dep.Value.Variables {
			if strings.Contains(v, secret) {
				return true
			}
		}
	}
	return false
}

func (d *databases) isEnsured(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ensured[id]
}

func (d *databases) setEnsured(id string, is bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if is {
		d.ensured[id] = true
	} else {
		delete(d.ensured, id)
	}
}

func (d *databases) observe(ctx context.Context, id string) (*database.Status, error) {
	found, err := d.Keeper.Observe(ctx, id)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}

// make lets a database be there and take connections, and writes what came of it.
func (d *databases) make(ctx context.Context, r registry.Record[dayfly.DatabaseRecord], reset bool) error {
	clone, err := d.Owner.CloneOf(r.Value)
	if err == nil && reset {
		crash.Point("before Reset")
		err = d.Keeper.Reset(ctx, clone)
		crash.Point("after Reset")
	} else if err == nil {
		crash.Point("before Ensure of a database")
		err = d.Keeper.Ensure(ctx, clone)
		crash.Point("after Ensure of a database")
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		done := r.Value.Resets
		if reset {
			done = -1 // as before
		}
		return errors.Join(err, d.publish(ctx, r, dayfly.DatabaseFailed, err.Error(), done))
	}
	d.setEnsured(r.Value.ID, true)
	return d.publish(ctx, r, dayfly.DatabaseReady, "", r.Value.Resets)
}

// publish writes what was seen into the state when it is news. Resets is how many have been done; less than
// nothing is as many as before.
func (d *databases) publish(ctx context.Context, r registry.Record[dayfly.DatabaseRecord], phase dayfly.DatabasePhase, message string, resets int) error {
	rec := r.Value
	before, ok := registry.Lookup(d.Cache, registry.DatabaseStatuses, rec.ID)
	if resets < 0 {
		resets = before.Value.Resets
	}
	now := dayfly.DatabaseStatus{
		Format: dayfly.Format, Database: rec.ID, Node: d.NodeID, Phase: phase, Message: message, Resets: resets, Tried: rec.Resets, Since: d.Now(),
	}
	if ok && before.Value.Phase == now.Phase {
		now.Since = before.Value.Since
	}
	if ok && before.Value == now {
		return nil
	}
	tell := func() {
		if rec.Owner != "" && (!ok || before.Value.Phase != phase) {
			d.tellDatabase(ctx, rec, now)
		}
	}
	revision, err := d.commitAndTell(ctx, rec.Owner, tell,
		registry.Put(registry.DatabaseStatuses, rec.ID, now), registry.Require(registry.Databases, r.Key, r.Revision))
	var conflict *registry.Conflict
	if errors.As(err, &conflict) {
		return nil // the record changed meanwhile, which brings the next pass
	}
	if err != nil {
		return err
	}
	return d.Cache.Wait(ctx, revision)
}

// tellDatabase makes an event of the environment of a change of its database.
func (d *databases) tellDatabase(ctx context.Context, rec dayfly.DatabaseRecord, st dayfly.DatabaseStatus) {
	e := dayfly.Event{Environment: rec.Environment, Kind: dayfly.EventStep}
	switch st.Phase {
	case dayfly.DatabaseReady:
		e.Reason, e.Message = "database-ready", fmt.Sprintf("the database %s takes connections", rec.Label)
	case dayfly.DatabaseFailed:
		e.Reason, e.Kind, e.Message = "database-failed", dayfly.EventError, fmt.Sprintf("the database %s: %s", rec.Label, st.Message)
	default:
		return
	}
	d.event(ctx, rec.Owner, e)
}

// remove takes a database away for good.
func (d *databases) remove(ctx context.Context, r registry.Record[dayfly.DatabaseRecord]) error {
	crash.Point("before Remove of a database")
	if err := d.Keeper.Remove(ctx, r.Value.ID); err != nil {
		return err
	}
	crash.Point("after Remove of a database")
	d.setEnsured(r.Value.ID, false)
	revision, err := d.commit(ctx,
		registry.DeleteIf(registry.Databases, r.Key, r.Revision), registry.Delete(registry.DatabaseStatuses, r.Value.ID))
	if err != nil {
		return err
	}
	return d.Cache.Wait(ctx, revision)
}

// orphan removes what the keeper has and no record knows: at once what was found at start, later ones
// after a grace.
func (d *databases) orphan(ctx context.Context, id string) error {
	d.setEnsured(id, false)
	seen, err := d.observe(ctx, id)
	if err != nil || seen == nil || d.busy(id, "remove") {
		return err
	}
	if wait := d.grace(id); wait > 0 {
		d.databases.addAfter(id, wait)
		return nil
	}
	d.start(ctx, d.databases, id, "remove", 0, func(ctx context.Context) error {
		d.Logger.Info("removing a database that nobody knows", "database", id)
		return d.Keeper.Remove(ctx, id)
	})
	return nil
}

// expireDatabases ends the databases whose time is over.
func (r *Reconciler) expireDatabases(ctx context.Context) {
	if r.Owner == nil {
		return
	}
	ended, err := r.Owner.ExpireDatabases(ctx)
	if err != nil {
		r.Logger.Warn("expired databases could not be ended; it is tried again", "error", err)
	}
	for _, name := range ended {
		r.Logger.Info("database expired", "database", name)
	}
}
