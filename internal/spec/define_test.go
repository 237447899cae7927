package spec

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
)

const everyKey = `
-- compose.yaml --
version: "3.9"
name: shop
x-dayfly:
  keep: 5d
  baseline: production
  branches: ["*", "!dependabot/*"]
  databases:
    db: {template: shop, fixtures: db/fixtures.sql, renew: true, migrate: make migrate}
    cache:
x-anything: {goes: here}
services:
  frontend:
    image: shop/frontend
    build: {context: ./frontend, dockerfile: Dockerfile.prod, target: run, args: {A: "1", B: }}
    entrypoint: ["/entry"]
    command: serve --all
    ports: ["${HTTP_PORT:-8080}:80", "81"]
    expose: ["90"]
    environment: {A: "1", EMPTY: "", NONE: }
    depends_on: {backend: {condition: service_healthy}, migrate: {condition: service_completed_successfully}, gone: {condition: service_started, required: false}}
    healthcheck: {test: ["CMD", "curl", "-f", "http://localhost"], interval: 5s, timeout: 1s, retries: 4, start_period: 1m}
    volumes: ["data:/data", "./src:/src", {type: volume, source: more, target: /more}]
    restart: always
    stop_signal: SIGINT
    stop_grace_period: 1m30s
    mem_limit: 256m
    deploy: {replicas: 3, resources: {limits: {cpus: "1.5"}}}
    labels: {a: b}
    networks: [n]
    x-dayfly:
      route: [/, {path: /api/, strip: true}, /a/b//]
      process:
        build: [go generate ./..., ["go", "build", "-o", "bin/f", "./f"]]
        run: bin/frontend --port $PORT
        build_env: [API_URL]
        writable: true
      health: /healthz
      paths: [frontend, lib]
      repo: https://example.org/frontend.git
      own: true
      protocol: h2c
      scale: {min: 0, max: 4, target: 50, idle: 15m}
      release: {strategy: direct, steps: [20%, 50%], pause: 2m, errors: 1%, latency: 500ms, test: smoke, choose: true}
  backend: {image: shop/backend, depends_on: [migrate]}
  migrate: {image: shop/backend}
  smoke: {x-dayfly: {test: true, process: {run: bin/smoke}}}
networks: {n: }
volumes: {data: , more: {}}
-- db/fixtures.sql --
INSERT
`

func TestEveryKeyArrivesInTheDefinition(t *testing.T) {
	p := mustLoad(t, everyKey[1:])
	if p.Name != "shop" || p.File != "compose.yaml" || p.Keep() != dayfly.Duration(5*24*time.Hour) || p.Baseline() != "production" {
		t.Errorf("%q %q %v %q", p.Name, p.File, p.Keep(), p.Baseline())
	}
	for what, got := range map[string][2][]string{
		"services": {p.Services(), {"backend", "frontend", "migrate", "smoke"}},
		"branches": {p.Branches(), {"*", "!dependabot/*"}},
	} {
		if !slices.Equal(got[0], got[1]) {
			t.Errorf("%s: %q, want %q", what, got[0], got[1])
		}
	}
	if want := []dayfly.DatabaseDefinition{
		{Name: "db", Template: "shop", Fixtures: "db/fixtures.sql", Renew: true, Migrate: dayfly.Command{"make", "migrate"}}, {Name: "cache"},
	}; !reflect.DeepEqual(p.Databases(), want) || string(p.Fixtures("db")) != "INSERT\n" || p.Fixtures("cache") != nil {
		t.Errorf("databases %+v, fixtures %q", p.Databases(), p.Fixtures("db"))
	}
	if b := p.Branches(); !b.Match("feature/x") || b.Match("dependabot/go") {
		t.Errorf("%q are not understood", b)
	}
	if b := mustLoad(t, "x-dayfly: {branches: main}\nservices: {web: {image: x}}\n").Branches(); !b.Match("main") || b.Match("x") {
		t.Errorf("one pattern alone is read as %q", b)
	}
	if p.Repo("frontend") != "https://example.org/frontend.git" || p.Repo("backend") != "" || !p.IsTest("smoke") || p.IsTest("frontend") {
		t.Error("repo or test is wrong")
	}
	second := dayfly.Duration(time.Second)
	want := dayfly.Definition{
		Service: "frontend", Dir: ".",
		Build:    []dayfly.Command{{"go", "generate", "./..."}, {"go", "build", "-o", "bin/f", "./f"}},
		BuildEnv: []string{"API_URL"}, Run: dayfly.Command{"bin/frontend", "--port", "$PORT"}, Writable: true,
		Image:      "shop/frontend",
		ImageBuild: &dayfly.ImageBuild{Context: "frontend", Dockerfile: "Dockerfile.prod", Target: "run", Args: map[string]string{"A": "1"}},
		Entrypoint: dayfly.Command{"/entry"}, Args: dayfly.Command{"serve", "--all"},
		Port: 80, Protocol: dayfly.ProtocolH2C,
		Routes: []dayfly.PathRoute{{Path: "/"}, {Path: "/api", Strip: true}, {Path: "/a/b"}},
		Health: dayfly.Health{Path: "/healthz", Interval: 5 * second, Timeout: second, Retries: 4, StartPeriod: 60 * second},
		DependsOn: map[string]dayfly.Condition{
			"backend": dayfly.ConditionHealthy, "migrate": dayfly.ConditionCompleted,
		},
		Variables: map[string]string{"A": "1", "EMPTY": ""},
		Own:       true, Paths: []string{"frontend", "lib"}, Repo: "https://example.org/frontend.git", Restart: "always",
		Stop:   dayfly.Stop{Signal: "SIGINT", Grace: 90 * second},
		Memory: 256 << 20, CPUs: 1.5,
		Scale: dayfly.Scale{Min: 0, Max: 4, Target: 50, Idle: 900 * second},
		Release: dayfly.ReleaseDefinition{
			Strategy: "direct", Steps: []string{"20%", "50%"}, Pause: 120 * second, Errors: "1%",
			Latency: second / 2, Test: "smoke", Choose: true,
		},
		Volumes: []string{"data", "more"},
	}
	got := definition(t, p, "frontend", nil)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if raw, err := p.Raw("frontend"); err != nil || !reflect.DeepEqual(raw, want) {
		t.Errorf("raw %+v, %v", raw, err)
	}
}

func TestWhatIsNotWrittenHasItsDefault(t *testing.T) {
	p := mustLoad(t, "services:\n  a: {image: x}\n")
	want := dayfly.Definition{
		Service: "a", Dir: ".", Image: "x", Paths: []string{"."}, Variables: map[string]string{}, Scale: dayfly.Scale{Min: 1},
	}
	if got := definition(t, p, "a", nil); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if p.Name != "" || p.Keep() != 0 || p.Baseline() != "" || p.Branches() != nil || p.Databases() != nil {
		t.Errorf("%+v", p)
	}
}

func TestPortsRoutesAndProtocolsFollowFromEachOther(t *testing.T) {
	for _, c := range []struct {
		name, file string
		port       int
		protocol   dayfly.Protocol
		public     bool // has the route /
	}{
		{"the only one with a port", `{a: {image: x, ports: ["1:80"]}}`, 80, dayfly.ProtocolHTTP, true},
		{"the only one with a published port", `{a: {image: x, ports: ["80"]}, b: {image: x, expose: ["80"]}}`, 80, dayfly.ProtocolHTTP, true},
		{"one of two with a published port", `{a: {image: x, ports: ["80"]}, b: {image: x, ports: ["80"]}}`, 80, dayfly.ProtocolTCP, false},
		{"the only one with an exposed port", `{a: {image: x, expose: ["80/tcp"]}, b: {image: x}}`, 80, dayfly.ProtocolHTTP, true},
		{"one of two with an exposed port", `{a: {image: x, expose: ["80"]}, b: {image: x, expose: ["80"]}}`, 80, dayfly.ProtocolTCP, false},
		{"a test takes no route away", `{a: {image: x, ports: ["80"]}, b: {image: x, ports: ["80"], x-dayfly: {test: true}}}`, 80, dayfly.ProtocolHTTP, true},
		{"another has a route", `{a: {image: x, expose: ["80"]}, b: {image: x, ports: ["80"], x-dayfly: {route: /b}}}`, 80, dayfly.ProtocolTCP, false},
		{"a route", `{a: {image: x, expose: [80], x-dayfly: {route: /}}, b: {image: x, ports: ["80"]}}`, 80, dayfly.ProtocolHTTP, true},
		{"no port", `{a: {image: x}}`, 0, "", false},
		{"a health path", `{a: {image: x, expose: [80], x-dayfly: {health: /h}}, b: {image: x, ports: ["80"]}}`, 80, dayfly.ProtocolHTTP, false},
		{"app_protocol http", `{a: {image: x, ports: [{target: 80, app_protocol: http}]}, b: {image: x, ports: ["80"]}}`, 80, dayfly.ProtocolHTTP, false},
		{"app_protocol grpc", `{a: {image: x, ports: [{target: 80, app_protocol: grpc}]}, b: {image: x, ports: ["80"]}}`, 80, dayfly.ProtocolH2C, false},
		{"app_protocol h2c with a route", `{a: {image: x, ports: [{target: 80, app_protocol: h2c}]}}`, 80, dayfly.ProtocolH2C, true},
		{"app_protocol mysql", `{a: {image: x, ports: [{target: 80, app_protocol: mysql}]}, b: {image: x, ports: ["80"]}}`, 80, dayfly.ProtocolTCP, false},
		{"a protocol that is written", `{a: {image: x, ports: [{target: 80, app_protocol: grpc}], x-dayfly: {protocol: tcp}}, b: {image: x, ports: ["80"]}}`, 80, dayfly.ProtocolTCP, false},
		{"a range", `{a: {image: x, ports: ["8000-8002:9000-9002"]}}`, 9000, dayfly.ProtocolHTTP, true},
		{"an exposed range", `{a: {image: x, expose: ["9000-9002"]}}`, 9000, dayfly.ProtocolHTTP, true},
		{"a port in a variable", `{a: {image: x, ports: ["${A:-1}:${B:-90}"]}}`, 90, dayfly.ProtocolHTTP, true},
		{"a required variable in a port", `{a: {image: x, ports: ["${A:?set A}:90"]}}`, 90, dayfly.ProtocolHTTP, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			def, err := mustLoad(t, "services: "+c.file+"\n").Raw("a")
			if err != nil {
				t.Fatal(err)
			}
			public := len(def.Routes) > 0 && def.Routes[0].Path == "/"
			if def.Port != c.port || def.Protocol != c.protocol || public != c.public {
				t.Errorf("port %d, protocol %q, routes %v", def.Port, def.Protocol, def.Routes)
			}
		})
	}
}

func TestAHealthCheckOfComposeIsUsedWhereNoPathIsGiven(t *testing.T) {
	for file, want := range map[string]dayfly.Command{
		`{test: [CMD, a, b]}`:             {"a", "b"},
		`{test: [CMD-SHELL, "a | b"]}`:    {"sh", "-c", "a | b"},
		`{test: "a | b"}`:                 {"sh", "-c", "a | b"},
		`{test: [NONE]}`:                  nil,
		`{disable: true, test: [CMD, a]}`: nil,
		`{interval: 5s}`:                  nil,
	} {
		def := definition(t, mustLoad(t, "services: {a: {image: x, healthcheck: "+file+"}}\n"), "a", nil)
		if !slices.Equal(def.Health.Test, want) || def.Health.Path != "" {
			t.Errorf("%s: %q, want %q", file, def.Health.Test, want)
		}
	}
}

func TestAServiceThatOthersWaitForToCompleteIsAJob(t *testing.T) {
	p := mustLoad(t, `
services:
  a: {image: x, depends_on: {migrate: {condition: service_completed_successfully}, b: {condition: service_started}}}
  b: {image: x, restart: on-failure}
  migrate: {image: x}
  once: {image: x, restart: "no"}
  smoke: {image: x, profiles: [test], x-dayfly: {test: true}}
  tool: {image: x, profiles: [tools]}
`)
	for service, want := range map[string]bool{"a": false, "b": false, "migrate": true, "once": true, "smoke": true} {
		if def := definition(t, p, service, nil); def.Job != want || def.Test != (service == "smoke") {
			t.Errorf("%s: job %v, test %v", service, def.Job, def.Test)
		}
	}
	if slices.Contains(p.Services(), "tool") {
		t.Error("a service of a profile is there")
	}
	if _, err := p.Definition("tool", nil); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
		t.Error(err)
	}
}

func TestInterpolationSeesWhatItIsGivenAndNothingOfTheServer(t *testing.T) {
	t.Setenv("SERVERS_OWN", "leaked")
	t.Setenv("COMPOSE_PROJECT_NAME", "leaked")
	p := mustLoad(t, `
-- compose.yaml --
services:
  web:
    image: x:${TAG}
    command: ["--path", "$PATH", "--url=${BACKEND_URL}"]
    env_file: web.env
    environment:
      - FROM_DOTENV=${DOTENV}
      - BEATEN=${DAYFLY_ENV}
      - URL=${BACKEND_URL:-none}
      - SERVER=${SERVERS_OWN}${HOME}${PATH}${COMPOSE_PROJECT_NAME}
      - DAYFLY_SERVICE
      - SERVERS_OWN
      - HOME
      - DOLLAR=$$TAG
    x-dayfly:
      process: {run: "bin/web $TAG ${BACKEND_URL} $$X", build: "make ${TAG}"}
-- web.env --
FILE_ENV=${DAYFLY_ENV}
FILE_SERVER=x${SERVERS_OWN}${HOME}
SERVERS_OWN
-- .env --
DOTENV=yes
TAG=1
DAYFLY_ENV=from-dotenv
HIDDEN=x${SERVERS_OWN}
`[1:])
	def := definition(t, p, "web", map[string]string{"DAYFLY_ENV": "temp-1", "BACKEND_URL": "http://127.1.2.3:1", "DAYFLY_SERVICE": "web"})
	want := map[string]string{
		"FROM_DOTENV": "yes", "BEATEN": "temp-1", "URL": "http://127.1.2.3:1", "SERVER": "", "DAYFLY_SERVICE": "web",
		"DOLLAR": "$TAG", "FILE_ENV": "temp-1", "FILE_SERVER": "x",
	}
	if !reflect.DeepEqual(def.Variables, want) {
		t.Errorf("got  %q\nwant %q", def.Variables, want)
	}
	if def.Image != "x:1" || !slices.Equal(def.Args, dayfly.Command{"--path", "", "--url=http://127.1.2.3:1"}) {
		t.Errorf("%q %q", def.Image, def.Args)
	}
	if !slices.Equal(def.Run, dayfly.Command{"bin/web", "$TAG", "${BACKEND_URL}", "$$X"}) || !slices.Equal(def.Build[0], dayfly.Command{"make", "${TAG}"}) {
		t.Errorf("x-dayfly.process is not as it was written: %q %q", def.Run, def.Build)
	}
	again := definition(t, p, "web", map[string]string{"DAYFLY_ENV": "temp-2"})
	if again.Variables["BEATEN"] != "temp-2" || again.Variables["URL"] != "none" {
		t.Errorf("one environment sees the variables of another: %q", again.Variables)
	}
}

func TestARequiredVariableIsMissedWhenADefinitionIsWanted(t *testing.T) {
	p := mustLoad(t, "services:\n  a: {image: x, environment: {A: '${BACKEND_URL:?no backend}'}}\n")
	_, err := p.Definition("a", nil)
	want := "compose.yaml:2:31: services.a.environment.A: required variable BACKEND_URL is missing a value: no backend"
	if got := problem(t, err); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if def := definition(t, p, "a", map[string]string{"BACKEND_URL": "u"}); def.Variables["A"] != "u" {
		t.Error(def.Variables)
	}
}

func TestTheHashChangesWithTheDefinitionAndNotWithVariables(t *testing.T) {
	const file = "-- compose.yaml --\nservices:\n  a: {image: 'x:${DAYFLY_ENV}', env_file: a.env}\n  b: {image: y}\n-- a.env --\nA=1\n-- .env --\nX=1\n"
	hash := func(file, service string) string { return mustLoad(t, file).Hash(service) }
	replace := func(old, with string) string { return strings.Replace(file, old, with, 1) }
	same := hash(file, "a")
	for what, c := range map[string]struct {
		file   string
		differ bool
	}{
		"nothing":         {file, false},
		"another service": {replace("image: y", "image: z"), false},
		"a comment":       {replace("services:", "# hello\nservices:"), false},
		".env":            {replace("X=1", "X=2"), false},
		"the image":       {replace("x:$", "z:$"), true},
		"its env_file":    {replace("A=1", "A=2"), true},
		"x-dayfly":        {replace("env_file: a.env", "env_file: a.env, x-dayfly: {own: true}"), true},
	} {
		if got := hash(c.file, "a") != same; got != c.differ {
			t.Errorf("%s: the hash differs: %v", what, got)
		}
	}
	if p := mustLoad(t, "-- Procfile --\nweb: a\nb: c\n"); p.Hash("web") == p.Hash("b") {
		t.Error("two processes have one hash")
	}
}
