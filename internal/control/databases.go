package control

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
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

// CreateDatabase makes a database: a copy of a template, or of another database. Its address and password are
// final, and it takes connections when it is ready.
func (c *Control) CreateDatabase(ctx context.Context, req dayfly.DatabaseRequest) (dayfly.Database, error) {
	none := dayfly.Database{}
	if _, err := c.keeper(); err != nil {
		return none, err
	}
	if req.Name != "" {
		if err := dayfly.ValidName(req.Name); err != nil {
			return none, dayfly.Invalid(dayfly.Problem{Field: "name", Message: err.Error()})
		}
		if there, ok := registry.Lookup(c.cache, registry.Databases, req.Name); ok && !there.Value.Deleting {
			return none, dayfly.Errorf(dayfly.CodeConflict, "there is a database %s already: choose another name, or delete it first", req.Name)
		}
	}
	life, err := c.life(req.Keep, dayfly.Project{})
	if err != nil {
		return none, err
	}
	if req.From != "" && req.Template != "" {
		return none, dayfly.Invalid(dayfly.Problem{Field: "from", Message: "a database is a copy of a template or of another database: give one of them"})
	}
	if req.Name != "" {
		if err := c.databaseGone(ctx, req.Name); err != nil {
			return none, err
		}
	}
	for attempt := 0; ; attempt++ {
		rec, requires, err := c.copyOf(req)
		if err != nil {
			return none, err
		}
		release, err := c.equip(ctx, &rec)
		if err != nil {
			return none, err
		}
		rec.Name = cmp.Or(req.Name, dayfly.ServiceHost("{service}-{env}", strings.TrimPrefix(cmp.Or(req.From, rec.Template), "dayfly-"), rec.ID[:6]))
		rec.Name = strings.ReplaceAll(rec.Name, ".", "-") // of a copy of an environment's
		if life != dayfly.Forever {
			end := rec.CreatedAt.Add(time.Duration(life))
			rec.ExpiresAt = &end
		}
		err = c.commit(ctx, append(requires, registry.Create(registry.Databases, rec.Name, rec))...)
		release()
		var conflict *registry.Conflict
		switch {
		case err == nil:
			return c.Database(ctx, rec.Name)
		case !errors.As(err, &conflict):
			return none, err
		case conflict.Kind == registry.Databases.Name() && conflict.Key == rec.Name && req.Name != "":
			return none, dayfly.Errorf(dayfly.CodeConflict, "there is a database %s already: choose another name, or delete it first", req.Name)
		case attempt == 5:
			return none, err
		}
		// The template got another version at this moment.
		if fresh, err := registry.Get(ctx, c.store, registry.Templates, rec.Template); err == nil {
			if err := c.cache.Wait(ctx, fresh.Revision); err != nil {
				return none, err
			}
		}
	}
}

// copyOf begins the record of a database that is a copy of what was asked for. What it is a copy of must
// be as it is when it is written.
func (c *Control) copyOf(req dayfly.DatabaseRequest) (rec dayfly.DatabaseRecord, requires []registry.Op, err error) {
	if req.From == "" {
		return c.copyOfTemplate(req.Template)
	}
	from, err := c.databaseRecord(req.From)
	if err != nil {
		return rec, nil, err
	}
	d := from.Value
	switch st, _ := registry.Lookup(c.cache, registry.DatabaseStatuses, d.ID); {
	case d.Deleting:
		return rec, nil, dayfly.Errorf(dayfly.CodeConflict, "database %s is being deleted: copy another one, or its template (--template %s)", from.Key, d.Template)
	case st.Value.Phase != dayfly.DatabaseReady:
		return rec, nil, dayfly.Errorf(dayfly.CodeConflict, "database %s is not ready yet: copy it when it is", from.Key)
	case d.Node != c.config.DatabaseNode:
		return rec, nil, c.elsewhere("database "+from.Key, d.Node)
	}
	rec = dayfly.DatabaseRecord{
		Template: d.Template, Version: d.Version, From: d.ID, FromName: from.Key, Engine: d.Engine, Database: d.Database,
	}
	return rec, []registry.Op{registry.Require(registry.Databases, from.Key, from.Revision)}, nil
}

// copyOfTemplate begins the record of a copy of a template; "" = the only one there is.
func (c *Control) copyOfTemplate(name string) (rec dayfly.DatabaseRecord, requires []registry.Op, err error) {
	t, err := c.templateOrOnly(name)
	if err != nil {
		return rec, nil, err
	}
	if t.Value.Current == "" {
		if t.Value.Loading != "" {
			return rec, nil, dayfly.Errorf(dayfly.CodeConflict, "template %s is still being loaded: `dayfly template list` shows how far it is", t.Key)
		}
		return rec, nil, dayfly.Errorf(dayfly.CodeConflict, "template %s could not be loaded: %s. Create it again", t.Key, t.Value.Problem)
	}
	v, ok := registry.Lookup(c.cache, registry.TemplateVersions, t.Value.Current)
	if !ok {
		return rec, nil, dayfly.Errorf(dayfly.CodeInternal, "template %s has lost its version %s: refresh it", t.Key, t.Value.Current)
	}
	if v.Value.Node != c.config.DatabaseNode {
		return rec, nil, c.elsewhere("template "+t.Key, v.Value.Node)
	}
	rec = dayfly.DatabaseRecord{Template: t.Key, Version: v.Key, Engine: v.Value.Engine, Database: v.Value.Database}
	return rec, []registry.Op{registry.Require(registry.Templates, t.Key, t.Revision)}, nil
}

// equip gives a new database its id, its address and its password. The port is held until release
// is called, which may be when the record is written.
func (c *Control) equip(ctx context.Context, rec *dayfly.DatabaseRecord) (release func(), err error) {
	keeper, err := c.keeper()
	if err != nil {
		return nil, err
	}
	password, err := c.vault.Seal(dayfly.NewSecret(rand.Text()))
	if err != nil {
		return nil, err
	}
	rec.Format, rec.Node, rec.CreatedAt = dayfly.Format, c.config.DatabaseNode, c.now()
	rec.Host, rec.User, rec.Password = cmp.Or(c.config.DatabaseHost, "127.0.0.1"), databaseUser, password
	// One at a time: what one is given no other one may be given before its record shows that.
	c.portsMu.Lock()
	defer c.portsMu.Unlock()
	taken := map[int]bool{}
	for d := range registry.All(c.cache, registry.Databases) {
		taken[d.Value.Port] = taken[d.Value.Port] || d.Value.Node == rec.Node
	}
	like := c.newClone(rec.Version)
	like.From = rec.From
	id, port, err := keeper.Place(ctx, like, func(p int) bool { return taken[p] || c.ports[p] })
	if err != nil {
		return nil, err
	}
	rec.ID, rec.Port = id, port
	c.ports[port] = true
	return func() {
		c.portsMu.Lock()
		defer c.portsMu.Unlock()
		delete(c.ports, port)
	}, nil
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

// databaseURL is where a database is reached.
func databaseURL(rec dayfly.DatabaseRecord, password string) string {
	u := url.URL{
		Scheme: rec.Engine, User: url.UserPassword(rec.User, password),
		Host: net.JoinHostPort(rec.Host, strconv.Itoa(rec.Port)), Path: "/" + rec.Database,
	}
	return u.String()
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

// RevealDatabases gives the passwords of an environment's databases by what stands for them in its variables.
func (c *Control) RevealDatabases(environmentID string) (map[string]string, error) {
	secrets := map[string]string{}
	for r := range registry.DatabasesOf(c.cache, environmentID) {
		password, err := c.vault.Unseal(r.Value.Password)
		if err != nil {
			return nil, err
		}
		secrets[dayfly.DatabaseSecret(r.Value.ID)] = password.Reveal()
	}
	return secrets, nil
}

// CloneOf gives a database as its keeper is to make it.
func (c *Control) CloneOf(rec dayfly.DatabaseRecord) (database.Clone, error) {
	password, err := c.vault.Unseal(rec.Password)
	if err != nil {
		return database.Clone{}, err
	}
	clone := database.Clone{
		ID: rec.ID, Template: rec.Version, User: rec.User, Password: password.Reveal(), Listen: c.config.DatabaseListen, Port: rec.Port, Fixtures: rec.Fixtures,
	}
	if rec.From != "" {
		clone.Template, clone.From = "", rec.From
	}
	return clone, nil
}

// newClone is how databases that are made from a version of a template begin.
func (c *Control) newClone(version string) database.Clone {
	return database.Clone{Template: version, User: databaseUser, Listen: c.config.DatabaseListen}
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

// environmentDatabases are the databases of an environment that is being resolved.
type environmentDatabases struct {
	*Control
	rec      dayfly.EnvironmentRecord
	ops      []registry.Op
	wanted   map[string]bool // labels
	dry      bool            // nothing is made, a template of ours neither
	releases []func()
}

func (c *Control) databasesFor(rec dayfly.EnvironmentRecord) *environmentDatabases {
	return &environmentDatabases{Control: c, rec: rec, wanted: map[string]bool{}}
}

// release lets go of what was held for databases that are written by now, or never will be.
func (e *environmentDatabases) release() {
	for _, r := range e.releases {
		r()
	}
	e.releases = nil
}

// want gives the database that an environment has under a name, or begins one. Empty says that it begins
// with no data of a template. Waiting is why there can be none yet.
func (e *environmentDatabases) want(ctx context.Context, def dayfly.DatabaseDefinition, empty bool, fixtures []byte, commit string) (id, address, waiting string, err error) {
	e.wanted[def.Name] = true
	there, exists := e.current(def.Name)
	if exists && e.keeps(there.Value, def, empty, commit) {
		return there.Value.ID, storedAddress(there.Value), "", nil
	}
	if _, err := e.keeper(); err != nil {
		return "", "", err.Error(), nil
	}
	template := def.Template
	switch {
	case empty && e.dry:
		rec := dayfly.DatabaseRecord{ID: dayfly.NewID(), Engine: "postgres", Host: "127.0.0.1"}
		return rec.ID, storedAddress(rec), "", nil
	case empty:
		template = dayfly.EmptyTemplate
		if err := e.emptyTemplate(ctx); err != nil {
			return "", "", "", err
		}
	}
	rec, requires, err := e.copyOfTemplate(template)
	if err != nil {
		if exists { // the one it has goes on until there is what is wanted now
			return there.Value.ID, storedAddress(there.Value), "", nil
		}
		switch dayfly.ErrorCode(err) {
		case dayfly.CodeNotFound, dayfly.CodeConflict, dayfly.CodeInvalid, dayfly.CodeUnavailable:
			return "", "", err.Error(), nil
		}
		return "", "", "", err
	}
	release, err := e.equip(ctx, &rec)
	if err != nil {
		return "", "", "", err
	}
	e.releases = append(e.releases, release)
	rec.Owner, rec.Environment, rec.Label, rec.Fixtures, rec.Commit = e.rec.ID, e.rec.Spec.Name, def.Name, fixtures, commit
	rec.Name = e.rec.Spec.Name + "." + def.Name
	e.ops = append(e.ops, requires...)
	if exists {
		e.ops = append(e.ops, registry.Update(registry.Databases, there.Key, rec, there.Revision))
		e.ops = append(e.ops, replaced(there)...)
	} else {
		e.ops = append(e.ops, registry.Create(registry.Databases, rec.Name, rec))
	}
	return rec.ID, storedAddress(rec), "", nil
}

// storedAddress is the address of a database as the state may have it: without the password.
func storedAddress(rec dayfly.DatabaseRecord) string {
	return databaseURL(rec, dayfly.DatabaseSecret(rec.ID))
}

// current is the database that an environment has under a name now.
func (e *environmentDatabases) current(label string) (registry.Record[dayfly.DatabaseRecord], bool) {
	for r := range registry.DatabasesOf(e.cache, e.rec.ID) {
		if r.Value.Label == label && !r.Value.Replaced && !r.Value.Deleting {
			return r, true
		}
	}
	return registry.Record[dayfly.DatabaseRecord]{}, false
}

// keeps says whether a database is what is wanted: it is kept over new commits unless the file says renew,
// and over new versions of its template.
func (e *environmentDatabases) keeps(rec dayfly.DatabaseRecord, def dayfly.DatabaseDefinition, empty bool, commit string) bool {
	switch {
	case def.Renew && rec.Commit != commit:
		return false
	case empty:
		return rec.Template == dayfly.EmptyTemplate
	case def.Template == "":
		return rec.Template != dayfly.EmptyTemplate
	}
	return rec.Template == def.Template
}

// replaced moves a database out of the way of the one that takes its place. It goes when nobody
// has its address any more.
func replaced(r registry.Record[dayfly.DatabaseRecord]) []registry.Op {
	old := r.Value
	old.Replaced = true
	old.Name = r.Key + "." + old.ID
	return []registry.Op{registry.Create(registry.Databases, old.Name, old)}
}

// all gives the ops for what the environment wants, and for what it wants no more.
func (e *environmentDatabases) all() []registry.Op {
	ops := slices.Clone(e.ops)
	for r := range registry.DatabasesOf(e.cache, e.rec.ID) {
		if rec := r.Value; !e.wanted[rec.Label] && !rec.Replaced && !rec.Deleting {
			rec.Replaced = true
			ops = append(ops, registry.Update(registry.Databases, r.Key, rec, r.Revision))
		}
	}
	return ops
}

// templateMayBeThere says whether a template that an environment waited for is there by now.
func (c *Control) templateMayBeThere(res *dayfly.Resolution) bool {
	return slices.ContainsFunc(res.Databases, func(d dayfly.ResolvedDatabase) bool {
		if d.ID != "" {
			return false
		}
		t, err := c.templateOrOnly(d.Template)
		return err == nil && t.Value.Current != ""
	})
}

// tooLarge says that a file is too large to be kept in the state.
func tooLarge(field string, n int) dayfly.Problem {
	return dayfly.Problem{Field: field, Message: fmt.Sprintf("has %d bytes, and %d are allowed: load it as a dump instead (--from-dump)", n, dayfly.MaxScript)}
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
