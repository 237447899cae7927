package reconcile

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/plan"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

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
