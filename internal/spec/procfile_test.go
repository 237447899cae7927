package spec

import (
	"reflect"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
)

func TestAProcfileDefinesAServiceALine(t *testing.T) {
	p := mustLoad(t, "-- Procfile --\n# comment\nweb: bin/web -p $PORT\r\n\n  worker :  bin/worker 'a b'\napi: bin/api --port=${PORT}\nprice: echo '$PORT'\n")
	base := func(name string, run ...string) dayfly.Definition {
		return dayfly.Definition{Service: name, Dir: ".", Run: run, Paths: []string{"."}, Scale: dayfly.Scale{Min: 1}}
	}
	web := base("web", "bin/web", "-p", "$PORT")
	web.Port, web.Protocol, web.Routes = 80, dayfly.ProtocolHTTP, []dayfly.PathRoute{{Path: "/"}}
	api := base("api", "bin/api", "--port=${PORT}")
	api.Port, api.Protocol = 80, dayfly.ProtocolHTTP
	want := map[string]dayfly.Definition{
		"web": web, "worker": base("worker", "bin/worker", "a b"), "api": api, "price": base("price", "echo", "$$PORT"),
	}
	if got := strings.Join(p.Services(), " "); got != "web worker api price" {
		t.Errorf("services: %s", got)
	}
	for name, def := range want {
		if got := definition(t, p, name, map[string]string{"PORT": "1"}); !reflect.DeepEqual(got, def) {
			t.Errorf("got  %+v\nwant %+v", got, def)
		}
	}
	if _, err := p.Definition("nobody", nil); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
		t.Errorf("a process that is not there: %v", err)
	}
}

func TestReleaseOfAProcfileIsAJobThatAllOthersWaitFor(t *testing.T) {
	p := mustLoad(t, "-- Procfile --\nweb: a\nrelease: migrate\nworker: b\n")
	for _, name := range p.Services() {
		def := definition(t, p, name, nil)
		waits := def.DependsOn["release"] == dayfly.ConditionCompleted
		if job := name == "release"; def.Job != job || waits == job {
			t.Errorf("%s: job %v, depends on %v", name, def.Job, def.DependsOn)
		}
	}
}

func TestAComposeFileBeatsAProcfileAndTheUsualNamesHaveAnOrder(t *testing.T) {
	const compose = "services: {a: {image: x}}\n"
	archive := "-- Procfile --\nweb: a\n"
	for _, name := range []string{"docker-compose.yml", "docker-compose.yaml", "compose.yml", "compose.yaml"} {
		archive += "-- " + name + " --\n" + compose
		if p := mustLoad(t, archive); p.File != name {
			t.Errorf("%s was read, and %s is there", p.File, name)
		}
	}
	p, err := LoadDir(folder(t, archive+"-- sub/other.yaml --\n"+compose), Options{File: "sub/other.yaml"})
	if err != nil || p.File != "sub/other.yaml" || definition(t, p, "a", nil).Dir != "sub" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := LoadDir(t.TempDir(), Options{}); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
		t.Errorf("a folder without a project file: %v", err)
	}
}
