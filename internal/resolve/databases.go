package resolve

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/spec"
)

// Databases gives an environment the database that it has under a name, or is to have: its id, and its address
// as variables may tell it. Empty says that it begins with no data of a template; fixtures are run when it is
// made, and commit is what a renewed one is made for. Waiting is why there can be none yet.
type Databases func(ctx context.Context, def dayfly.DatabaseDefinition, empty bool, fixtures []byte, commit string) (id, address, waiting string, err error)

// resolveDatabases finds the databases that the services of the environment use.
func (s *session) resolveDatabases(ctx context.Context, file *spec.Project, chosen []*choice) error {
	commit := commitsOf(chosen)
	for _, def := range file.Databases() {
		given := func(c *choice) bool {
			return c.from == dayfly.FromOwn && slices.Contains(file.GivenDatabases(c.name), def.Name)
		}
		if !slices.ContainsFunc(chosen, given) {
			continue // nobody would use it
		}
		empty, fixtures := def.Template == "" && def.Fixtures != "", []byte(nil)
		switch cmp.Or(s.spec.Data, dayfly.DataSnapshot) {
		case dayfly.DataFixtures:
			if def.Fixtures == "" {
				return dayfly.Invalid(dayfly.Problem{File: file.File, Field: "x-dayfly.databases." + def.Name + ".fixtures",
					Message: "is missing, and the environment is to begin with fixtures: add a file with them, or choose other data"})
			}
			empty = true
		case dayfly.DataNone:
			empty = true
		}
		if empty && s.spec.Data != dayfly.DataNone {
			fixtures = file.Fixtures(def.Name)
		}
		db := dayfly.ResolvedDatabase{Name: def.Name, Template: def.Template}
		if empty {
			db.Template = dayfly.EmptyTemplate
		}
		if s.in.Database == nil {
			db.Waiting = "this server keeps no databases"
		} else {
			id, address, waiting, err := s.in.Database(ctx, def, empty, fixtures, commit)
			if err != nil {
				return named("database "+def.Name, err)
			}
			if db.ID, db.Waiting = id, waiting; id != "" {
				s.databases[def.Name], db.Template = address, ""
			}
		}
		if db.ID == "" {
			s.miss(nil, dayfly.ServiceSpec{Name: def.Name, Version: def.Template}, nil, db.Waiting)
		}
		s.resolved = append(s.resolved, db)
	}
	return nil
}

// commitsOf says at which commits an environment's own services are.
func commitsOf(chosen []*choice) string {
	commits := map[string]bool{}
	for _, c := range chosen {
		if c.from == dayfly.FromOwn {
			commits[c.commit] = true
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(commits)), " ")
}

// databaseVariables adds the addresses of the databases that a service is told of.
func (s *session) databaseVariables(c *choice, vars map[string]string) {
	if len(s.databases) == 0 || c.file == nil {
		return
	}
	given := c.databases
	if given == nil {
		given = s.project.GivenDatabases(c.name)
	}
	for _, name := range given {
		if address := s.databases[name]; address != "" {
			vars[dayfly.VariableOf(name)] = address
			if len(given) == 1 {
				vars["DATABASE_URL"] = address
			}
		}
	}
}

// startsAfter gives the databases without which a service is not started.
func (s *session) startsAfter(c *choice) (names []string) {
	if c.from != dayfly.FromOwn || s.project == nil {
		return nil
	}
	uses := s.project.DatabasesOf(c.name)
	for _, db := range s.resolved {
		if slices.Contains(uses, db.Name) {
			names = append(names, db.Name)
		}
	}
	return names
}

// migrations makes the jobs that bring the databases to what a commit needs: each runs once for every commit,
// before whatever uses its database starts.
func (s *session) migrations(res *dayfly.Resolution, chosen []*choice) error {
	services := len(res.Services) // without the jobs
	for _, def := range s.project.Databases() {
		if len(def.Migrate) == 0 || s.databases[def.Name] == "" {
			continue
		}
		name := "migrate-" + def.Name
		if slices.ContainsFunc(res.Services, func(rs dayfly.ResolvedService) bool { return rs.Name == name }) {
			return dayfly.Invalid(dayfly.Problem{File: s.project.File, Field: "x-dayfly.databases." + def.Name + ".migrate",
				Message: fmt.Sprintf("runs as a job that is called %s, as a service is: call that something else", name)})
		}
		// What is told an address that is not known yet is another job when it is: then the one without it must not have run. So it
		// waits for all that it is told of, as the services do that use its database.
		told := []string{def.Name}
		for _, rs := range res.Services[:services] {
			if rs.From == dayfly.FromOwn && slices.Contains(rs.Databases, def.Name) {
				told = append(told, rs.Databases...)
			}
		}
		slices.Sort(told)
		told = slices.Compact(told)
		after := []string{def.Name}
		for _, db := range s.resolved {
			if db.ID == "" && slices.Contains(told, db.Name) {
				after = append(after, db.Name)
			}
		}
		c := &choice{name: name, repo: s.home.repo, commit: s.home.commit, version: s.home.version, file: s.project, from: dayfly.FromOwn, databases: told}
		job := dayfly.Definition{
			Service: name, Dir: path.Dir(s.project.File), Run: def.Migrate, Job: true, Own: true, Paths: []string{"."},
			Scale: dayfly.Scale{Min: 1}, Variables: map[string]string{},
		}
		vars := s.address(c, chosen)
		res.Services = append(res.Services, dayfly.ResolvedService{
			Name: name, From: dayfly.FromOwn, Reason: "it migrates the database " + def.Name, Version: c.version, Repo: c.repo, Commit: c.commit,
			Credential: s.credentialFor(c.repo), Definition: &job, Variables: vars, Hash: hash(job, vars), Databases: after,
		})
		for i := range res.Services[:services] {
			rs := &res.Services[i]
			if rs.From != dayfly.FromOwn || rs.Definition.Test || !slices.Contains(rs.Databases, def.Name) {
				continue
			}
			waits := *rs.Definition
			waits.DependsOn = maps.Clone(waits.DependsOn)
			if waits.DependsOn == nil {
				waits.DependsOn = map[string]dayfly.Condition{}
			}
			waits.DependsOn[name] = dayfly.ConditionCompleted
			rs.Definition = &waits
			rs.Hash = hash(waits, rs.Variables)
		}
	}
	return nil
}
