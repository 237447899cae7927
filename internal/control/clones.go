package control

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

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

// databaseURL is where a database is reached.
func databaseURL(rec dayfly.DatabaseRecord, password string) string {
	u := url.URL{
		Scheme: rec.Engine, User: url.UserPassword(rec.User, password),
		Host: net.JoinHostPort(rec.Host, strconv.Itoa(rec.Port)), Path: "/" + rec.Database,
	}
	return u.String()
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
