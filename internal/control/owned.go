package control

import (
	"context"
	"slices"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

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
