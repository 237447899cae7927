package registry_test

import (
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/release"
)

var (
	indexNames    = []string{"a", "b", "c", "d"}
	indexProjects = []string{"blog", "shop"}
	indexRepos    = []string{"", "/r/1", "/r/10", "/r/2"}
)

func sharedKey(project, service, commit, hash string) dayfly.DeploymentKey {
	return dayfly.DeploymentKey{Project: project, Service: service, Version: commit, Hash: hash, Owner: dayfly.SharedOwner(project)}
}

// sharedKeys are all deployments that the environments below may share.
func sharedKeys() (keys []dayfly.DeploymentKey) {
	for _, project := range indexProjects {
		for _, service := range []string{"api", "web"} {
			for _, commit := range []string{"c1", "c2"} {
				for _, hash := range []string{"h1", "h2"} {
					keys = append(keys, sharedKey(project, service, commit, hash))
				}
			}
		}
	}
	return keys
}

// drawIndexed gives a change of a record that some index finds, and which record that is.
func drawIndexed(t *rapid.T) (record string, op registry.Op) {
	name := rapid.SampledFrom(indexNames).Draw(t, "name")
	id := name + rapid.SampledFrom([]string{"1", "2"}).Draw(t, "id")
	key := rapid.SampledFrom(sharedKeys()).Draw(t, "shared")
	kind := rapid.IntRange(0, 3).Draw(t, "kind")
	if rapid.IntRange(0, 4).Draw(t, "delete") == 0 {
		return []string{"environment " + name, "resolution " + name, "release " + name, key.ID()}[kind], []registry.Op{
			registry.Delete(registry.Environments, name), registry.Delete(registry.Resolutions, name),
			registry.Delete(registry.Releases, name), registry.Delete(registry.Deployments, key.ID()),
		}[kind]
	}
	switch kind {
	case 0:
		rec := dayfly.EnvironmentRecord{ID: id, Deleting: rapid.IntRange(0, 3).Draw(t, "deleting") == 0,
			Spec: dayfly.EnvironmentSpec{Name: name, Project: rapid.SampledFrom(indexProjects).Draw(t, "project")}}
		if n := rapid.IntRange(0, 5).Draw(t, "expires"); n > 0 {
			at := time.Unix(0, 0).Add(time.Duration(n) * 30 * time.Hour) // over the ends of months, with and without nanoseconds
			if n%2 == 0 {
				at = at.Add(1).In(time.FixedZone("east", 5*3600))
			}
			rec.ExpiresAt = &at
		}
		return "environment " + name, registry.Put(registry.Environments, name, rec)
	case 1:
		res := dayfly.Resolution{Environment: id}
		for _, service := range []string{"api", "web"} {
			res.Services = append(res.Services, dayfly.ResolvedService{
				Name: service, From: rapid.SampledFrom([]dayfly.From{dayfly.FromOwn, dayfly.FromShared, dayfly.FromRegistered}).Draw(t, "from"),
				Version: "v1",
				Repo:    rapid.SampledFrom(indexRepos).Draw(t, "repo"),
				Commit:  rapid.SampledFrom([]string{"c1", "c2"}).Draw(t, "commit"), Hash: rapid.SampledFrom([]string{"h1", "h2"}).Draw(t, "hash"),
			})
		}
		if rapid.Bool().Draw(t, "missing") {
			res.Missing = []dayfly.Need{{Missing: dayfly.Missing{Service: "db"}}}
		}
		return "resolution " + name, registry.Put(registry.Resolutions, name, res)
	case 2:
		state := release.State{Services: map[string][]release.Target{}}
		for _, k := range rapid.SliceOfN(rapid.SampledFrom(sharedKeys()), 0, 3).Draw(t, "targets") {
			state.Services[k.Service] = append(state.Services[k.Service], release.Target{Deployment: k.ID(), Weight: 1})
		}
		return "release " + name, registry.Put(registry.Releases, name, state)
	default:
		if rapid.Bool().Draw(t, "own") {
			key.Owner = id
		}
		return key.ID(), registry.Put(registry.Deployments, key.ID(), dayfly.Deployment{ID: key.ID(), Key: key})
	}
}

func keysOf[T any](seq iter.Seq[registry.Record[T]]) (keys []string) {
	for r := range seq {
		keys = append(keys, r.Key)
	}
	return keys
}

// where looks at all records of a kind.
func where[T any](c *registry.Cache, kind registry.Kind[T], is func(registry.Record[T]) bool) (keys []string) {
	for r := range registry.All(c, kind) {
		if is(r) {
			keys = append(keys, r.Key)
		}
	}
	return keys
}

// usersByScan says who uses a shared deployment by looking at every environment.
func usersByScan(c *registry.Cache, key dayfly.DeploymentKey) []string {
	return where(c, registry.Environments, func(e registry.Record[dayfly.EnvironmentRecord]) bool {
		if e.Value.Spec.Project != key.Project {
			return false
		}
		res, ok := registry.Lookup(c, registry.Resolutions, e.Key)
		if ok && !e.Value.Deleting && res.Value.Environment == e.Value.ID && slices.ContainsFunc(res.Value.Services, func(rs dayfly.ResolvedService) bool {
			return rs.From == dayfly.FromShared && rs.Name == key.Service && rs.Commit == key.Version && rs.Hash == key.Hash
		}) {
			return true
		}
		rel, ok := registry.Lookup(c, registry.Releases, e.Key)
		return ok && rel.Value.Serves(key.ID())
	})
}

func TestIndexesFindWhatALookAtEveryRecordFinds(t *testing.T) {
	s := open(t, registry.Config{Dir: t.TempDir()})
	c := startCache(t, s)
	same := func(t *rapid.T, what string, got, want []string) {
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		for range rapid.IntRange(1, 4).Draw(t, "commits") {
			ops := map[string]registry.Op{} // one record cannot be changed twice at once
			for range rapid.IntRange(1, 20).Draw(t, "changes") {
				record, op := drawIndexed(t)
				ops[record] = op
			}
			var list []registry.Op
			for _, op := range ops {
				list = append(list, op)
			}
			revision, err := registry.Commit(t.Context(), s, list...)
			if err == nil {
				err = c.Wait(t.Context(), revision)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, key := range sharedKeys() {
			want := usersByScan(c, key)
			same(t, "users of "+key.ID(), registry.UsersOf(c, key), want)
			if registry.InUse(c, key) != (len(want) > 0) {
				t.Errorf("%s in use: %v, but %v use it", key.ID(), len(want) == 0, want)
			}
		}
		for _, project := range indexProjects {
			same(t, "users of what is registered for "+project, slices.Collect(registry.UsersOfRegistered(c, project, "web", "v1")),
				where(c, registry.Environments, func(e registry.Record[dayfly.EnvironmentRecord]) bool {
					res, ok := registry.Lookup(c, registry.Resolutions, e.Key)
					return ok && e.Value.Spec.Project == project && res.Value.Environment == e.Value.ID &&
						slices.ContainsFunc(res.Value.Services, func(rs dayfly.ResolvedService) bool { return rs.Name == "web" && rs.From == dayfly.FromRegistered })
				}))
		}
		same(t, "missing", keysOf(registry.Missing(c)), where(c, registry.Resolutions, func(r registry.Record[dayfly.Resolution]) bool { return len(r.Value.Missing) > 0 }))
		shared := keysOf(registry.SharedDeployments(c))
		slices.Sort(shared)
		same(t, "shared", shared, where(c, registry.Deployments, func(d registry.Record[dayfly.Deployment]) bool {
			return strings.HasPrefix(d.Value.Key.Owner, "project:")
		}))

		var used []string
		for _, repo := range indexRepos {
			if from := keysOf(registry.FromRepo(c, repo)); repo != "" {
				same(t, "from "+repo, from, where(c, registry.Resolutions, func(r registry.Record[dayfly.Resolution]) bool {
					return slices.ContainsFunc(r.Value.Services, func(rs dayfly.ResolvedService) bool { return rs.Repo == repo })
				}))
				if len(from) > 0 {
					used = append(used, repo)
				}
			}
		}
		same(t, "repositories", slices.Collect(registry.ReposInUse(c)), used)

		var last time.Time
		var ending []string
		for r := range registry.Expiring(c) {
			if r.Value.ExpiresAt.Before(last) {
				t.Errorf("%s ends at %s, and comes after one of %s", r.Key, r.Value.ExpiresAt, last)
			}
			last = *r.Value.ExpiresAt
			ending = append(ending, r.Key)
		}
		slices.Sort(ending)
		same(t, "ending", ending, where(c, registry.Environments, func(r registry.Record[dayfly.EnvironmentRecord]) bool {
			return r.Value.ExpiresAt != nil && !r.Value.Deleting
		}))
	})
}
