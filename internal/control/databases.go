package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// databaseUser is whom all databases belong to: each has a password of its own.
const databaseUser = "dayfly"

// maxDatabases bounds the databases in a list.
const maxDatabases = 10_000

// keeper gives what keeps databases, or says why there is none.
func (c *Control) keeper() (database.Keeper, error) {
	if c.databases == nil {
		return nil, dayfly.Errorf(dayfly.CodeUnavailable, "this server keeps no databases: %s",
			cmp.Or(c.config.NoDatabases, "start one with --pool"))
	}
	return c.databases, nil
}

// databaseRecord finds a database by its name or id.
func (c *Control) databaseRecord(nameOrID string) (registry.Record[dayfly.DatabaseRecord], error) {
	if r, ok := registry.Lookup(c.cache, registry.Databases, nameOrID); ok {
		return r, nil
	}
	if r, ok := registry.DatabaseByID(c.cache, nameOrID); ok && nameOrID != "" {
		return r, nil
	}
	return registry.Record[dayfly.DatabaseRecord]{}, dayfly.Errorf(dayfly.CodeNotFound,
		"there is no database %q: `dayfly db list` shows those there are", nameOrID)
}

// Database gives a database by its name or id.
func (c *Control) Database(ctx context.Context, nameOrID string) (dayfly.Database, error) {
	r, err := c.databaseRecord(nameOrID)
	if err != nil {
		return dayfly.Database{}, err
	}
	return c.viewDatabase(r, c.sizes(ctx, r.Value.ID)), nil
}

// Databases lists databases in the order of their names.
func (c *Control) Databases(ctx context.Context, f dayfly.DatabaseFilter) ([]dayfly.Database, error) {
	env, template := "", ""
	if f.Environment != "" {
		r, err := c.record(f.Environment)
		if err != nil {
			return nil, err
		}
		env = r.Value.ID
	}
	if f.Template != "" {
		t, err := c.templateRecord(f.Template)
		if err != nil {
			return nil, err
		}
		template = t.Key
	}
	sizes := c.sizes(ctx)
	list := []dayfly.Database{}
	for r := range registry.All(c.cache, registry.Databases) {
		if env != "" && r.Value.Owner != env || template != "" && r.Value.Template != template || len(list) == maxDatabases {
			continue
		}
		list = append(list, c.viewDatabase(r, sizes))
	}
	return list, nil
}

// sizes gives what the keeper knows of databases: without ids, of all of them.
func (c *Control) sizes(ctx context.Context, ids ...string) map[string]database.Status {
	known := map[string]database.Status{}
	if c.databases == nil {
		return known
	}
	list, err := c.databases.Observe(ctx, ids...)
	if err != nil {
		c.log.Warn("the sizes of databases are not known", "error", err)
	}
	for _, st := range list {
		known[st.ID] = st
	}
	return known
}

// viewDatabase puts together what the API answers about a database.
func (c *Control) viewDatabase(r registry.Record[dayfly.DatabaseRecord], sizes map[string]database.Status) dayfly.Database {
	rec := r.Value
	d := dayfly.Database{
		ID: rec.ID, Name: r.Key, Template: rec.Template, From: rec.FromName, Environment: rec.Environment, Status: dayfly.DatabaseStarting,
		Engine: rec.Engine, Host: rec.Host, Port: rec.Port, Database: rec.Database, User: rec.User,
		CreatedAt: rec.CreatedAt, ExpiresAt: rec.ExpiresAt, Revision: r.Revision,
	}
	if v, ok := registry.Lookup(c.cache, registry.TemplateVersions, rec.Version); ok {
		d.Version = v.Value.Number
	}
	if st, ok := registry.Lookup(c.cache, registry.DatabaseStatuses, rec.ID); ok && st.Value.Tried == rec.Resets {
		d.Status, d.Message = st.Value.Phase, st.Value.Message
	}
	if rec.Deleting {
		d.Status = dayfly.DatabaseDeleting
	}
	if rec.Node == c.config.DatabaseNode && c.databases == nil {
		d.Message = "it is not looked after, since this server cannot open what keeps it: " + c.config.NoDatabases
	}
	if c.away(rec.Node) {
		d.Message = fmt.Sprintf("server %s at %s, which keeps it, is not there: start that one again", rec.Node, rec.Host)
		if rec.Owner == "" {
			d.Message += ", or give the database up (dayfly db delete --force " + r.Key + ")"
		}
	}
	if password, err := c.vault.Unseal(rec.Password); err != nil {
		if d.Message == "" && !rec.Deleting { // else there is more to say
			d.Status, d.Message = dayfly.DatabaseFailed, "its password cannot be read: "+err.Error()
		}
	} else {
		d.Password = password.Reveal()
		d.URL = databaseURL(rec, d.Password)
	}
	if seen, ok := sizes[rec.ID]; ok {
		size := seen.Bytes
		d.SizeBytes, d.OwnBytes = &size, seen.OwnBytes
	}
	return d
}

// WaitDatabase waits until done says so of a database and gives it as it is then. One that is not there,
// or goes meanwhile, is dayfly.CodeNotFound; when ctx ends it gives the database as it is and ctx's error.
func (c *Control) WaitDatabase(ctx context.Context, name string, done func(dayfly.Database) bool) (dayfly.Database, error) {
	d, err := c.Database(ctx, name)
	if err != nil {
		return d, err
	}
	return wait(ctx, &c.hub, hubDatabase(d.Name), func() (dayfly.Database, error) { return c.Database(ctx, d.ID) }, done)
}

// ResetDatabase brings a database back to what it was made from, at the same address.
func (c *Control) ResetDatabase(ctx context.Context, name string) (dayfly.Database, error) {
	for attempt := 0; ; attempt++ {
		r, err := c.databaseRecord(name)
		if err != nil {
			return dayfly.Database{}, err
		}
		rec := r.Value
		if rec.Deleting {
			return dayfly.Database{}, dayfly.Errorf(dayfly.CodeConflict, "database %s is being deleted", r.Key)
		}
		rec.Resets++
		err = c.commit(ctx, registry.Update(registry.Databases, r.Key, rec, r.Revision))
		switch {
		case err == nil:
			return c.Database(ctx, rec.ID)
		case dayfly.ErrorCode(err) != dayfly.CodeConflict || attempt == 5:
			return dayfly.Database{}, err
		}
		if err := c.databaseNow(ctx, r.Key); err != nil {
			return dayfly.Database{}, err
		}
	}
}

// PatchDatabase changes how long a database lives. ifMatch is the revision that it must have; 0 = any.
func (c *Control) PatchDatabase(ctx context.Context, name string, patch dayfly.DatabasePatch, ifMatch int64) (dayfly.Database, error) {
	none := dayfly.Database{}
	for attempt := 0; ; attempt++ {
		r, err := c.databaseRecord(name)
		if err != nil {
			return none, err
		}
		rec := r.Value
		switch {
		case ifMatch != 0 && ifMatch != r.Revision:
			return none, dayfly.Errorf(dayfly.CodeConflict, "database %s was changed meanwhile: look at it again", r.Key)
		case rec.Deleting:
			return none, dayfly.Errorf(dayfly.CodeConflict, "database %s is being deleted", r.Key)
		case rec.Owner != "":
			return none, dayfly.Errorf(dayfly.CodeConflict,
				"database %s belongs to environment %s and lives as long as that: `dayfly extend %s` lets both live on", r.Key, rec.Environment, rec.Environment)
		}
		if patch.ExtendBy != nil {
			if err := c.extendDatabase(&rec, *patch.ExtendBy); err != nil {
				return none, err
			}
		}
		err = c.commit(ctx, registry.Update(registry.Databases, r.Key, rec, r.Revision))
		switch {
		case err == nil:
			return c.Database(ctx, rec.ID)
		case dayfly.ErrorCode(err) != dayfly.CodeConflict || attempt == 5:
			return none, err
		}
		if err := c.databaseNow(ctx, r.Key); err != nil {
			return none, err
		}
	}
}

// extendDatabase lets a record live at least so long from now on.
func (c *Control) extendDatabase(rec *dayfly.DatabaseRecord, by dayfly.Duration) error {
	if by == 0 {
		return dayfly.Invalid(dayfly.Problem{Field: "extend", Message: "has to be longer than nothing"})
	}
	life, err := c.life(by, dayfly.Project{})
	var invalid *dayfly.Error
	if errors.As(err, &invalid) {
		for i := range invalid.Problems {
			invalid.Problems[i].Field = "extend"
		}
	}
	switch end := c.now().Add(time.Duration(life)); {
	case err != nil:
		return err
	case life == dayfly.Forever:
		rec.ExpiresAt = nil
	case rec.ExpiresAt != nil && end.After(*rec.ExpiresAt):
		rec.ExpiresAt = &end
	}
	return nil
}

// databaseNow waits until the cache has what is known of a database now.
func (c *Control) databaseNow(ctx context.Context, name string) error {
	fresh, err := registry.Get(ctx, c.store, registry.Databases, name)
	if dayfly.ErrorCode(err) == dayfly.CodeNotFound {
		return dayfly.Errorf(dayfly.CodeNotFound, "database %s is gone", name)
	}
	if err != nil {
		return err
	}
	return c.cache.Wait(ctx, fresh.Revision)
}

// DeleteDatabase marks a database as on its way out and gives it as it is then. With Force one whose server is
// not there is forgotten at once.
func (c *Control) DeleteDatabase(ctx context.Context, name string, o dayfly.DeleteOptions) (dayfly.Database, error) {
	for attempt := 0; ; attempt++ {
		r, err := c.databaseRecord(name)
		if err != nil {
			return dayfly.Database{}, err
		}
		rec := r.Value
		if rec.Owner != "" {
			return dayfly.Database{}, dayfly.Errorf(dayfly.CodeConflict,
				"database %s belongs to environment %s and goes with it: `dayfly db reset %s` gives a fresh one", r.Key, rec.Environment, r.Key)
		}
		given := o.Force && c.away(rec.Node)
		deleting := rec.Deleting
		rec.Deleting = true
		switch {
		case given:
			err = c.commit(ctx, registry.DeleteIf(registry.Databases, r.Key, r.Revision), registry.Delete(registry.DatabaseStatuses, rec.ID))
		case !deleting:
			err = c.commit(ctx, registry.Update(registry.Databases, r.Key, rec, r.Revision))
		}
		switch {
		case err == nil:
			// It may be gone by now.
			r.Value = rec
			return c.viewDatabase(r, nil), nil
		case dayfly.ErrorCode(err) != dayfly.CodeConflict || attempt == 5:
			return dayfly.Database{}, err
		}
		if err := c.databaseNow(ctx, r.Key); err != nil {
			return dayfly.Database{}, err
		}
	}
}

// databaseGone waits for a database of this name that is on its way out, so that a name can be used again
// at once.
func (c *Control) databaseGone(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	changed, stop := c.hub.listen(hubDatabase(name))
	defer stop()
	for {
		if there, ok := registry.Lookup(c.cache, registry.Databases, name); !ok || !there.Value.Deleting {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return dayfly.Errorf(dayfly.CodeConflict, "database %s is still being deleted: try again when it is gone", name)
		}
	}
}

// ExpireDatabases ends the databases whose time is over and says which.
func (c *Control) ExpireDatabases(ctx context.Context) (ended []string, err error) {
	now := c.now()
	for r := range registry.All(c.cache, registry.Databases) {
		rec := r.Value
		if rec.Deleting || rec.ExpiresAt == nil || now.Before(*rec.ExpiresAt) {
			continue
		}
		rec.Deleting = true
		err := c.commit(ctx, registry.Update(registry.Databases, r.Key, rec, r.Revision))
		switch {
		case dayfly.ErrorCode(err) == dayfly.CodeConflict:
			continue // the next time will see
		case err != nil:
			return ended, err
		}
		ended = append(ended, r.Key)
	}
	return ended, nil
}

func hubDatabase(name string) string { return "database/" + name }

// hubVersions is told of changes of all versions of templates.
const hubVersions = "versions/"

func hubTemplate(name string) string { return "template/" + name }

// tellDatabases passes changes of databases and templates on to those who wait for them.
func (c *Control) tellDatabases(change registry.Change) {
	switch change.Kind {
	case registry.Databases.Name():
		c.hub.tell(hubDatabase(change.Key))
	case registry.DatabaseStatuses.Name():
		if d, ok := registry.DatabaseByID(c.cache, change.Key); ok {
			c.hub.tell(hubDatabase(d.Key))
			c.hub.tell(d.Value.Environment)
		}
	case registry.Templates.Name():
		c.hub.tell(hubTemplate(change.Key))
	case registry.TemplateVersions.Name():
		c.hub.tell(hubVersions)
	}
}

// templatesNow waits until the cache has what another transaction was in conflict with.
func (c *Control) templatesNow(ctx context.Context, conflict *registry.Conflict) error {
	var revision int64
	var err error
	if conflict.Kind == registry.Templates.Name() {
		var t registry.Record[dayfly.TemplateRecord]
		t, err = registry.Get(ctx, c.store, registry.Templates, conflict.Key)
		revision = t.Revision
	} else {
		var d registry.Record[dayfly.DatabaseRecord]
		d, err = registry.Get(ctx, c.store, registry.Databases, conflict.Key)
		revision = d.Revision
	}
	if err != nil {
		if dayfly.ErrorCode(err) == dayfly.CodeNotFound {
			return nil // the cache hears of that as of everything
		}
		return err
	}
	return c.cache.Wait(ctx, revision)
}
