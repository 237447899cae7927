package registry_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/release"
)

// fillIn sets everything in v to something, so that a field that is forgotten shows.
func fillIn(v reflect.Value, name string) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillIn(v.Elem(), name)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)))
			return
		}
		for field, value := range v.Fields() {
			if field.Tag.Get("json") != "-" {
				fillIn(value, name+"."+field.Name)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fillIn(v.Index(i), fmt.Sprint(name, i))
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fillIn(key, name+"-key")
		fillIn(value, name+"-value")
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.String:
		v.SetString(name)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(time.Hour) * int64(1+len(name)%20)) // a duration that text tells exactly
	case reflect.Float64:
		v.SetFloat(1.5)
	default:
		panic(fmt.Sprintf("%s is of kind %s", name, v.Kind()))
	}
}

// whole demands that a record comes back as it was written, from etcd, from a cache that
// loads it and from one that hears of it.
func whole[T any](t *testing.T, kind registry.Kind[T]) {
	t.Helper()
	s := open(t, registry.Config{Dir: t.TempDir()})
	follows := startCache(t, s)
	var full, empty T
	fillIn(reflect.ValueOf(&full).Elem(), "")
	want := map[string]T{"full": full}
	if kind.Name() != registry.Deployments.Name() { // whose definition never is nil
		want["empty"] = empty
	}
	for key, v := range want {
		wait(t, follows, commit(t, s, registry.Put(kind, key, v)))
	}
	loads := startCache(t, s)
	for key, v := range want {
		got, err := registry.Get(t.Context(), s, kind, key)
		if err != nil {
			t.Fatal(err)
		}
		followed, _ := registry.Lookup(follows, kind, key)
		loaded, _ := registry.Lookup(loads, kind, key)
		for how, got := range map[string]T{"read": got.Value, "followed": followed.Value, "loaded": loaded.Value} {
			if !reflect.DeepEqual(got, v) {
				t.Errorf("a %s %s, %s, is\n%+v\ninstead of\n%+v", key, kind.Name(), how, got, v)
			}
		}
	}
}

func TestARecordComesBackAsItWasWritten(t *testing.T) {
	t.Run("deployment", func(t *testing.T) { whole(t, registry.Deployments) })
	t.Run("resolution", func(t *testing.T) { whole(t, registry.Resolutions) })
	t.Run("environment", func(t *testing.T) { whole(t, registry.Environments) })
	t.Run("release", func(t *testing.T) { whole(t, registry.Releases) })
	t.Run("observed", func(t *testing.T) { whole(t, registry.Observed) })
	t.Run("host", func(t *testing.T) { whole(t, registry.Hosts) })
	t.Run("address", func(t *testing.T) { whole(t, registry.Addresses) })
}

// alike gives the records of an environment like others.
func alike(name string) []registry.Op {
	def := &dayfly.Definition{Service: "web", Run: dayfly.Command{"serve"}, Port: 80}
	vars := map[string]string{"DAYFLY_ENV": name}
	return []registry.Op{
		registry.Put(registry.Environments, name, dayfly.EnvironmentRecord{ID: "id-" + name, Spec: dayfly.EnvironmentSpec{Name: name, Project: "shop"}}),
		registry.Put(registry.Resolutions, name, dayfly.Resolution{Environment: "id-" + name, Services: []dayfly.ResolvedService{
			{Name: "web", Commit: "c0ffee", Definition: def, Variables: vars, Hash: "hash"}}}),
		registry.Put(registry.Deployments, "d-"+name, dayfly.Deployment{ID: "d-" + name, Commit: "c0ffee", Definition: def, Variables: vars,
			Key: dayfly.DeploymentKey{Owner: "id-" + name, Project: "shop"}}),
		registry.Put(registry.Releases, name, release.State{Services: map[string][]release.Target{"web": {{Deployment: "d-" + name}}}}),
	}
}

func TestACacheHoldsOnceWhatManyRecordsHaveAlike(t *testing.T) {
	s := open(t, registry.Config{Dir: t.TempDir()})
	follows := startCache(t, s)
	for _, name := range []string{"a", "b"} {
		wait(t, follows, commit(t, s, alike(name)...))
	}
	for how, c := range map[string]*registry.Cache{"followed": follows, "loaded": startCache(t, s)} {
		t.Run(how, func(t *testing.T) {
			da, _ := registry.Lookup(c, registry.Deployments, "d-a")
			db, _ := registry.Lookup(c, registry.Deployments, "d-b")
			ra, _ := registry.Lookup(c, registry.Resolutions, "a")
			ea, _ := registry.Lookup(c, registry.Environments, "a")
			sa, _ := registry.Lookup(c, registry.Releases, "a")
			web := ra.Value.Services[0]
			if da.Value.Definition != db.Value.Definition || da.Value.Definition != web.Definition {
				t.Error("equal definitions are not one")
			}
			mapOf := func(m map[string]string) uintptr { return reflect.ValueOf(m).Pointer() }
			if mapOf(da.Value.Variables) != mapOf(web.Variables) {
				t.Error("equal variables are not one")
			}
			if mapOf(da.Value.Variables) == mapOf(db.Value.Variables) || db.Value.Variables["DAYFLY_ENV"] != "b" {
				t.Errorf("variables of one environment are those of another: %v", db.Value.Variables)
			}
			for what, pair := range map[string][2]string{
				"commit": {da.Value.Commit, web.Commit}, "project": {da.Value.Key.Project, ea.Value.Spec.Project},
				"key": {ra.Key, ea.Value.Spec.Name}, "id": {da.Value.Key.Owner, ra.Value.Environment},
				"target": {sa.Value.Services["web"][0].Deployment, da.Key},
			} {
				if pair[0] != pair[1] || unsafe.StringData(pair[0]) != unsafe.StringData(pair[1]) {
					t.Errorf("%s: %q and %q are not one", what, pair[0], pair[1])
				}
			}
		})
	}
}

// What etcd reads belongs to whoever asked, who may change it.
func TestWhatIsReadFromEtcdIsSharedWithNobody(t *testing.T) {
	s := open(t, registry.Config{Dir: t.TempDir()})
	commit(t, s, append(alike("a"), alike("b")...)...)
	list, err := registry.List(t.Context(), s, registry.Deployments)
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	if list[0].Value.Definition == list[1].Value.Definition {
		t.Error("two that were listed have one definition")
	}
}

func TestADeploymentWithoutADefinitionHasAnEmptyOne(t *testing.T) {
	p := startProcess(t)
	s := open(t, registry.Config{Endpoints: []string{p.address}})
	for key, data := range map[string]string{
		"deployment/null": `{"format":1,"record":{"id":"null","definition":null}}`, "deployment/none": `{"format":1,"record":{"id":"none"}}`,
		"resolution/e": `{"format":1,"record":{"environment":"e","services":[{"name":"web"}]}}`,
	} {
		if _, err := p.client(t).Put(t.Context(), "/dayfly/1/record/"+key, data); err != nil {
			t.Fatal(err)
		}
	}
	c := startCache(t, s)
	for _, id := range []string{"null", "none"} {
		cached, _ := registry.Lookup(c, registry.Deployments, id)
		read, err := registry.Get(t.Context(), s, registry.Deployments, id)
		if err != nil || cached.Value.ID != id || read.Value.ID != id {
			t.Fatal(cached, read, err)
		}
		for _, d := range []*dayfly.Definition{cached.Value.Definition, read.Value.Definition} {
			if d == nil || !reflect.DeepEqual(*d, dayfly.Definition{}) {
				t.Errorf("%s has %+v", id, d)
			}
		}
	}
	if r, ok := registry.Lookup(c, registry.Resolutions, "e"); !ok || r.Value.Services[0].Definition == nil || r.Value.Services[0].Variables != nil {
		t.Errorf("%+v, %v", r, ok)
	}
}

func TestAPartThatCannotBeReadIsNamedWithItsRecord(t *testing.T) {
	p := startProcess(t)
	s := open(t, registry.Config{Endpoints: []string{p.address}})
	for key, data := range map[string]string{
		"deployment/a": `{"definition":{"port":"http"}}`, "deployment/b": `{"definition":{},"variables":[]}`,
		"resolution/c": `{"services":[{"definition":[]}]}`, "resolution/d": `{"services":[{"variables":{"A":1}}]}`,
	} {
		path := "/dayfly/1/record/" + key
		// Twice, since what failed must not count as known.
		for _, path := range []string{path, path + "-again"} {
			if _, err := p.client(t).Put(t.Context(), path, `{"format":1,"record":`+data+`}`); err != nil {
				t.Fatal(err)
			}
		}
		var errs []error
		if kind, _, _ := strings.Cut(key, "/"); kind == "deployment" {
			_, err := registry.List(t.Context(), s, registry.Deployments)
			errs = append(errs, err)
		} else {
			_, err := registry.List(t.Context(), s, registry.Resolutions)
			errs = append(errs, err)
		}
		c := registry.NewCache(s)
		errs = append(errs, c.Start(t.Context()))
		c.Close()
		if _, err := p.client(t).Delete(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		// The other one is still there.
		c = registry.NewCache(s)
		errs = append(errs, c.Start(t.Context()))
		c.Close()
		if _, err := p.client(t).Delete(t.Context(), path+"-again"); err != nil {
			t.Fatal(err)
		}
		for i, err := range errs {
			if err == nil || !strings.Contains(err.Error(), "cannot be read") || !strings.Contains(err.Error(), key) {
				t.Errorf("%s, %d: %v", key, i, err)
			}
		}
	}
}

// The parts that a cache shares are forgotten from time to time, or they would pile up.
func TestACacheThatFollowsForLongStillSharesAndForgets(t *testing.T) {
	s := open(t, registry.Config{Dir: t.TempDir()})
	c := startCache(t, s)
	var last int64
	for i := range 30 {
		var ops []registry.Op
		for j := range 100 {
			ops = append(ops, alike(fmt.Sprintf("e%d-%d", i, j))...)
		}
		last = commit(t, s, ops...)
		wait(t, c, last)
		if n := c.Shared(); n > 4096+100*10 {
			t.Fatalf("after %d environments %d parts are remembered", (i+1)*100, n)
		}
	}
	wait(t, c, last)
	first, _ := registry.Lookup(c, registry.Deployments, "d-e29-0")
	second, _ := registry.Lookup(c, registry.Deployments, "d-e29-99")
	if first.Value.Definition == nil || first.Value.Definition != second.Value.Definition {
		t.Error("equal definitions that came together are not one")
	}
}
