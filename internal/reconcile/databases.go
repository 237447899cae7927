package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/plan"
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

func (d *databases) adoptTemplates(ctx context.Context) {
	for v := range registry.All(d.Cache, registry.TemplateVersions) {
		d.versions.add(v.Key)
	}
	found, err := d.Keeper.Templates(ctx)
	if err != nil {
		d.Logger.Error("the keeper's templates cannot be observed", "error", err)
	}
	for _, t := range found {
		d.left(t.ID, func() bool { _, ok := registry.Lookup(d.Cache, registry.TemplateVersions, t.ID); return ok })
		d.versions.add(t.ID)
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

// version is one pass over one version of a template: it is made where that was asked for, and collected when no
// database was made from it and no new one will be.
func (d *databases) version(ctx context.Context, id string) error {
	v, ok := registry.Lookup(d.Cache, registry.TemplateVersions, id)
	if !ok {
		return d.orphanVersion(ctx, id)
	}
	if v.Value.Node != d.NodeID {
		return nil
	}
	t, ok := registry.Lookup(d.Cache, registry.Templates, v.Value.Template)
	wanted := ok && t.Value.ID == v.Value.TemplateID && (t.Value.Current == id || t.Value.Loading == id)
	if !wanted {
		for range registry.DatabasesFromVersion(d.Cache, id) {
			d.Keeper.Retire(id)
			return nil
		}
		d.Owner.StopLoad(id)
		if !d.busy(id, "forget") {
			d.start(ctx, d.versions, id, "forget", v.Revision, func(ctx context.Context) error { return d.forgetVersion(ctx, v) })
		}
		return nil
	}
	if !v.Value.Frozen && t.Value.Loading == id && !d.busy(id, "load") {
		d.start(ctx, d.versions, id, "load", v.Revision, func(ctx context.Context) error { return d.Owner.LoadTemplate(ctx, id) })
	}
	return nil
}

// forgetVersion takes a version of a template away for good.
func (d *databases) forgetVersion(ctx context.Context, v registry.Record[dayfly.TemplateVersion]) error {
	crash.Point("before Forget")
	if err := d.Keeper.Forget(ctx, v.Key); err != nil {
		return err
	}
	crash.Point("after Forget")
	revision, err := d.commit(ctx, registry.Delete(registry.TemplateVersions, v.Key))
	if err != nil {
		return err
	}
	return d.Cache.Wait(ctx, revision)
}

// orphanVersion removes a version of which there is no record.
func (d *databases) orphanVersion(ctx context.Context, id string) error {
	found, err := d.Keeper.Templates(ctx)
	if err != nil {
		return err
	}
	for _, t := range found {
		if t.ID != id || d.busy(id, "forget") {
			continue
		}
		if wait := d.grace(id); wait > 0 {
			d.versions.addAfter(id, wait)
			return nil
		}
		d.start(ctx, d.versions, id, "forget", 0, func(ctx context.Context) error { return d.Keeper.Forget(ctx, id) })
	}
	return nil
}

// databaseChanges passes changes of the state to the workers of databases.
type databaseChanges struct {
	*Reconciler
	known map[string]dayfly.DatabaseRecord // by name, also when the record is gone
}

func (r *Reconciler) databaseChanges() databaseChanges {
	c := databaseChanges{r, map[string]dayfly.DatabaseRecord{}}
	for d := range registry.All(r.Cache, registry.Databases) {
		c.known[d.Key] = d.Value
	}
	return c
}

func (c databaseChanges) pass(change registry.Change) {
	switch change.Kind {
	case registry.Databases.Name():
		old := c.known[change.Key]
		now, there := registry.Lookup(c.Cache, registry.Databases, change.Key)
		if there {
			c.known[change.Key] = now.Value
		} else {
			delete(c.known, change.Key)
		}
		for _, rec := range []dayfly.DatabaseRecord{old, now.Value} {
			if rec.ID != "" {
				c.addDatabase(rec)
			}
		}
	case registry.DatabaseStatuses.Name():
		if d, ok := registry.DatabaseByID(c.Cache, change.Key); ok {
			c.addDatabase(d.Value)
		}
	case registry.Environments.Name(), registry.Deployments.Name():
		if !change.Deleted {
			return
		}
		for _, rec := range c.known { // whose is not known any more
			if rec.Replaced || rec.Environment == change.Key {
				c.addDatabase(rec)
			}
		}
	case registry.Templates.Name():
		for v := range registry.VersionsOf(c.Cache, change.Key) {
			c.addVersion(v.Key)
		}
	case registry.TemplateVersions.Name():
		c.addVersion(change.Key)
	}
}

func (c databaseChanges) addDatabase(rec dayfly.DatabaseRecord) {
	if rec.Environment != "" {
		c.environments.add(rec.Environment)
	}
	if c.kept != nil {
		c.kept.databases.add(rec.ID)
		c.kept.versions.add(rec.Version)
	}
}

func (c databaseChanges) addVersion(id string) {
	if c.kept != nil {
		c.kept.versions.add(id)
	}
}

// databasesLeft lets the databases of an environment that is being deleted go when nothing runs any more that
// uses them, and says whether there still are some.
func (r *Reconciler) databasesLeft(ctx context.Context, rec registry.Record[dayfly.EnvironmentRecord], p plan.Plan) (bool, error) {
	if !rec.Value.Deleting || len(p.Steps) == 0 || p.Steps[len(p.Steps)-1].Kind != plan.Forget {
		return false, nil
	}
	left := false
	var ops []registry.Op
	for d := range registry.DatabasesOf(r.Cache, rec.Value.ID) {
		left = true
		if gone := d.Value; !gone.Deleting {
			gone.Deleting = true
			ops = append(ops, registry.Update(registry.Databases, d.Key, gone, d.Revision))
		}
	}
	if len(ops) == 0 {
		return left, nil
	}
	_, err := r.commit(ctx, ops...)
	return true, err
}

// revealed gives a deployment with the passwords of its environment's databases, which the state does
// not have.
func (r *Reconciler) revealed(d dayfly.Deployment) (dayfly.Deployment, error) {
	// Whoever is told something that has a password is told it as a variable, too.
	has := false
	for _, v := range d.Variables {
		has = has || dayfly.HasDatabaseSecret(v)
	}
	if !has || r.Owner == nil {
		return d, nil
	}
	definition, err := json.Marshal(d.Definition)
	if err != nil {
		return d, err
	}
	secrets, err := r.Owner.RevealDatabases(d.Key.Owner)
	if err != nil {
		return d, err
	}
	var pairs []string
	for stands, password := range secrets {
		pairs = append(pairs, stands, password)
	}
	reveal := strings.NewReplacer(pairs...)
	variables := make(map[string]string, len(d.Variables))
	for name, v := range d.Variables {
		variables[name] = reveal.Replace(v)
	}
	d.Variables = variables
	if dayfly.HasDatabaseSecret(string(definition)) { // passwords are letters and digits, so that this stays JSON
		var def dayfly.Definition
		if err := json.Unmarshal([]byte(reveal.Replace(string(definition))), &def); err != nil {
			return d, err
		}
		d.Definition = &def
	}
	return d, nil
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
