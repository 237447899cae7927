package reconcile

import (
	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

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
