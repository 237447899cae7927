package resolve

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dayfly-dev/dayfly"
)

// compose is the project file of the shop; TEXT is a value that tells commits apart.
const compose = `name: shop
x-dayfly: {keep: 5d, branches: ["*", "!dependabot/*"]}
services:
  front-end:
    ports: ["8080"]
    depends_on: [backend]
    environment:
      TEXT: TEXT
      SELF: "${DAYFLY_ENV} ${BACKEND_URL}"
      DAYFLY_ENV: mine
      BACKEND_URL: http://somewhere.else
    x-dayfly:
      route: /
      process: {run: bin/front}
  backend:
    ports: ["9000"]
    environment: {TEXT: TEXT}
    x-dayfly:
      health: /healthz
      process: {run: bin/backend}
  queue:
    ports: ["5672"]
    x-dayfly: {process: {run: bin/queue}}
  worker:
    environment: {PORT: "1"}
    x-dayfly: {process: {run: bin/worker}}
  smoke:
    x-dayfly: {test: true, process: {run: bin/smoke}}
`

func file(text string) map[string]string {
	return map[string]string{"compose.yaml": strings.ReplaceAll(compose, "TEXT: TEXT", "TEXT: "+text)}
}

// oneShop has the shop with a branch and a tag.
func oneShop(t *testing.T) *shelf {
	return newShelf(t).put(shop, "c1", file("one"), "main").put(shop, "c2", file("two"), "feature").put(shop, "c3", file("three"), "v1.0")
}

func TestEveryServiceIsResolvedAtTheBranchOfTheEnvironment(t *testing.T) {
	s := oneShop(t)
	for _, c := range []struct{ what, branch, want string }{
		{"the default branch", "", "backend@main=c1 front-end@main=c1 queue@main=c1 smoke@main=c1 worker@main=c1"},
		{"a branch", "feature", "backend@feature=c2 front-end@feature=c2 queue@feature=c2 smoke@feature=c2 worker@feature=c2"},
	} {
		t.Run(c.what, func(t *testing.T) {
			res := s.must(wish{EnvironmentSpec: dayfly.EnvironmentSpec{Branch: c.branch}})
			if got := versions(res); got != c.want {
				t.Errorf("are %s, want %s", got, c.want)
			}
			for _, rs := range res.Services {
				if rs.From != dayfly.FromOwn || rs.Repo != shop || rs.Credential != "credential" || rs.Definition.Service != rs.Name {
					t.Errorf("%s: from %s, repo %s, credential %q, definition of %q", rs.Name, rs.From, rs.Repo, rs.Credential, rs.Definition.Service)
				}
			}
			if res.Format != dayfly.Format || res.Environment != "id" || !res.ResolvedAt.Equal(time.Unix(1000, 0)) {
				t.Errorf("is format %d of %q at %s", res.Format, res.Environment, res.ResolvedAt)
			}
		})
	}
	s.refuse(wish{EnvironmentSpec: dayfly.EnvironmentSpec{Branch: "gone"}}, dayfly.CodeNotFound, `"gone"`, shop)
}

func TestAServiceMayHaveAVersionABranchOrARepositoryOfItsOwn(t *testing.T) {
	const fork = "https://git.example/fork"
	s := oneShop(t).put(fork, "f1", file("forked"), "main").put(fork, "f2", file("branch"), "theirs")
	for _, c := range []struct {
		what       string
		ask        dayfly.ServiceSpec
		want, text string
	}{
		{"a tag", dayfly.ServiceSpec{Version: "v1.0"}, "v1.0=c3", "three"},
		{"a commit", dayfly.ServiceSpec{Version: "c3"}, "c3=c3", "three"},
		{"a branch", dayfly.ServiceSpec{Branch: "feature"}, "feature=c2", "two"},
		{"a repository without the branch", dayfly.ServiceSpec{Repo: fork}, "main=f1", "forked"},
		{"a repository and a branch", dayfly.ServiceSpec{Repo: fork, Branch: "theirs"}, "theirs=f2", "branch"},
		{"a repository and a version", dayfly.ServiceSpec{Repo: fork, Version: "f2"}, "f2=f2", "branch"},
	} {
		t.Run(c.what, func(t *testing.T) {
			c.ask.Name = "backend"
			res := s.must(wish{EnvironmentSpec: dayfly.EnvironmentSpec{Branch: "main", Services: []dayfly.ServiceSpec{c.ask}}})
			rs := service(t, res, "backend")
			if got := rs.Version + "=" + rs.Commit; got != c.want || rs.Variables["TEXT"] != c.text {
				t.Errorf("is %s with the text %s, want %s with %s", got, rs.Variables["TEXT"], c.want, c.text)
			}
			if c.ask.Repo != "" && rs.Repo != fork {
				t.Errorf("is of %s", rs.Repo)
			}
			if other := service(t, res, "front-end"); other.Commit != "c1" || other.Variables["TEXT"] != "one" {
				t.Errorf("the other one is at %s with the text %s", other.Commit, other.Variables["TEXT"])
			}
		})
	}
	for _, ask := range []dayfly.ServiceSpec{{Branch: "gone"}, {Branch: "v1.0"}, {Repo: fork, Branch: "gone"}} {
		ask.Name = "backend"
		s.refuse(wish{EnvironmentSpec: dayfly.EnvironmentSpec{Services: []dayfly.ServiceSpec{ask}}}, dayfly.CodeNotFound, "service backend: ")
	}
	// A version may come: it is waited for.
	res := s.must(wish{EnvironmentSpec: dayfly.EnvironmentSpec{Services: []dayfly.ServiceSpec{{Name: "backend", Version: "gone", Route: "/api"}}}})
	if len(res.Missing) != 1 || res.Missing[0].Service != "backend" || res.Missing[0].Version != "gone" || res.Missing[0].Routes[0].Path != "/api" ||
		slices.ContainsFunc(res.Services, func(rs dayfly.ResolvedService) bool { return rs.Name == "backend" }) {
		t.Errorf("a version that is not there gives %+v", res.Missing)
	}
}

func TestAVersionThatDoesNotNameAServiceIsDefinedByTheProject(t *testing.T) {
	s := oneShop(t).put(shop, "c0", map[string]string{"Procfile": "other: ./other\n"}, "v0.1").put(shop, "c00", nil, "v0.0")
	for version, commit := range map[string]string{"v0.1": "c0", "v0.0": "c00"} {
		res := s.must(wish{EnvironmentSpec: dayfly.EnvironmentSpec{Services: []dayfly.ServiceSpec{{Name: "backend", Version: version}}}})
		if rs := service(t, res, "backend"); rs.Commit != commit || rs.Variables["TEXT"] != "one" {
			t.Errorf("is at %s with the text %s", rs.Commit, rs.Variables["TEXT"])
		}
	}
	delete(s.trees, shop+"@c0")
	s.refuse(wish{EnvironmentSpec: dayfly.EnvironmentSpec{Services: []dayfly.ServiceSpec{{Name: "backend", Version: "v0.1"}}}},
		dayfly.CodeNotFound, "service backend", "any more")
}

func TestOnlyLeavesServicesOutAndKeepsTheTests(t *testing.T) {
	s := oneShop(t)
	for _, c := range []struct {
		only []string
		want string
	}{
		{nil, "backend front-end queue smoke worker"},
		{[]string{"front-end"}, "front-end smoke"},
		{[]string{"worker", "backend"}, "backend smoke worker"},
		{[]string{}, "smoke"},
	} {
		res := s.must(wish{EnvironmentSpec: dayfly.EnvironmentSpec{Only: c.only}})
		if got := names(res); got != c.want {
			t.Errorf("only %v is %s, want %s", c.only, got, c.want)
		}
		for _, rs := range res.Services {
			if found := lookup(rs.Variables, "QUEUE_"); c.only != nil && len(found) > 0 {
				t.Errorf("%s is told of a service that is left out: %v", rs.Name, found)
			}
		}
	}
	if rs := service(t, s.must(wish{}), "smoke"); !rs.Definition.Test {
		t.Error("the test is none")
	}
}

// twoRepositories has a backend that lives elsewhere.
func twoRepositories(t *testing.T, other string) *shelf {
	own := map[string]string{"compose.yaml": strings.ReplaceAll(compose, "      health: /healthz\n", "      health: /healthz\n      repo: "+other+"\n")}
	return newShelf(t).put(shop, "s1", own, "main").put(other, "b1", file("b-one"), "main")
}

func TestABranchIsTakenWhereItExistsAndHasToExistSomewhere(t *testing.T) {
	for _, c := range []struct {
		what        string
		shop, other bool
		want        string // version=commit of front-end and of backend
	}{
		{"in both", true, true, "feature=s2 feature=b2"},
		{"in the project's own only", true, false, "feature=s2 main=b1"},
		{"in the other one only", false, true, "main=s1 feature=b2"},
		{"in none", false, false, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := twoRepositories(t, backend)
			if c.shop {
				s.refs[shop]["feature"], s.trees[shop+"@s2"] = "s2", s.trees[shop+"@s1"]
			}
			if c.other {
				s.put(backend, "b2", file("b-two"), "feature")
			}
			w := wish{EnvironmentSpec: dayfly.EnvironmentSpec{Branch: "feature"}}
			if c.want == "" {
				s.refuse(w, dayfly.CodeNotFound, `"feature"`)
				return
			}
			res := s.must(w)
			front, back := service(t, res, "front-end"), service(t, res, "backend")
			if got := front.Version + "=" + front.Commit + " " + back.Version + "=" + back.Commit; got != c.want {
				t.Errorf("are %s, want %s", got, c.want)
			}
			if back.Repo != backend || front.Repo != shop {
				t.Errorf("are of %s and %s", front.Repo, back.Repo)
			}
			if text := back.Variables["TEXT"]; text != map[string]string{"b1": "b-one", "b2": "b-two"}[back.Commit] {
				t.Errorf("is defined with the text %s", text)
			}
		})
	}
}

func TestATokenIsShownToTheHostOfTheProjectOnly(t *testing.T) {
	for other, want := range map[string]struct{ token, credential string }{
		backend:   {"the-token", "credential"},
		elsewhere: {"", ""},
	} {
		for _, asked := range []bool{false, true} {
			s, w := twoRepositories(t, other), wish{}
			if asked {
				w.Services = []dayfly.ServiceSpec{{Name: "queue", Repo: other}}
			}
			res := s.must(w)
			for repo, tokens := range s.shown {
				for _, token := range tokens {
					if repo == shop && token != "the-token" || repo == other && token != want.token {
						t.Errorf("%s was shown %q", repo, token)
					}
				}
			}
			if len(s.shown[other]) == 0 {
				t.Errorf("%s was not asked", other)
			}
			for _, rs := range res.Services {
				if rs.Repo == other && rs.Credential != want.credential || rs.Repo == shop && rs.Credential != "credential" {
					t.Errorf("%s of %s is kept with the credential %q", rs.Name, rs.Repo, rs.Credential)
				}
			}
		}
	}
}

func TestAServicesRepositoryHasNoPasswordAndIsOneThatIsAllowed(t *testing.T) {
	const withPassword = "https://me:hunter2@git.example/backend"
	s := twoRepositories(t, backend)
	ask := func(repo string) wish {
		return wish{EnvironmentSpec: dayfly.EnvironmentSpec{Services: []dayfly.ServiceSpec{{Name: "queue", Repo: repo}}}}
	}
	s.refuse(ask(withPassword), dayfly.CodeInvalid, "services.queue.repo: ", "password")
	s.refuse(ask("ext::sh -c x"), dayfly.CodeInvalid, "services.queue.repo: is not allowed")
	if _, err := s.ask(ask(withPassword)); strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error shows it: %v", err)
	}
	s = twoRepositories(t, withPassword)
	s.refuse(wish{}, dayfly.CodeInvalid, "compose.yaml: services.backend.x-dayfly.repo: ", "password")
}

func TestAddressesStayAndOnlyServicesWithAPortHaveOne(t *testing.T) {
	s := oneShop(t)
	first := s.must(wish{EnvironmentSpec: dayfly.EnvironmentSpec{Only: []string{"backend", "front-end", "worker"}}})
	seen := map[string]string{first.Address: "the environment"}
	for _, rs := range first.Services {
		if has := rs.Address != ""; has != (rs.Definition.Port != 0) {
			t.Errorf("%s with the port %d has the address %q", rs.Name, rs.Definition.Port, rs.Address)
		}
		if rs.Address != "" && seen[rs.Address] != "" {
			t.Errorf("%s has the address of %s", rs.Name, seen[rs.Address])
		}
		seen[rs.Address] = rs.Name
	}
	// As if the numbers had gone on.
	first.Address = "127.1.1.1"
	for i := range first.Services {
		if first.Services[i].Address != "" {
			first.Services[i].Address += "00"
		}
	}
	again := s.must(wish{EnvironmentSpec: dayfly.EnvironmentSpec{Branch: "feature"}, previous: first})
	if again.Address != first.Address {
		t.Errorf("the environment's address is %s, was %s", again.Address, first.Address)
	}
	for _, name := range []string{"backend", "front-end"} {
		if is, was := service(t, again, name).Address, service(t, first, name).Address; is != was {
			t.Errorf("the address of %s is %s, was %s", name, is, was)
		}
	}
	if a := service(t, again, "queue").Address; a != "127.9.0.1" {
		t.Errorf("the new one has %q", a)
	}
}

func TestHostsComeFromTheNameOrThePrefix(t *testing.T) {
	s := oneShop(t)
	for prefix, label := range map[string]string{"": "env", "try": "try"} {
		res := s.must(wish{EnvironmentSpec: dayfly.EnvironmentSpec{Prefix: prefix}})
		for name, want := range map[string][]string{
			"front-end": {label + ".dev.example", "front-end--" + label + ".dev.example"},
			"backend":   {"backend--" + label + ".dev.example"},
			"queue":     nil, "worker": nil, "smoke": nil,
		} {
			if got := service(t, res, name).Hosts; !slices.Equal(got, want) {
				t.Errorf("%s has %v, want %v", name, got, want)
			}
		}
	}
}

func TestARouteOfTheEnvironmentBeatsTheFile(t *testing.T) {
	s := oneShop(t)
	ask := func(name, route string) wish {
		return wish{EnvironmentSpec: dayfly.EnvironmentSpec{Services: []dayfly.ServiceSpec{{Name: name, Route: route}}}}
	}
	res := s.must(ask("front-end", "/app"))
	if got := service(t, res, "front-end").Definition.Routes; !slices.Equal(got, []dayfly.PathRoute{{Path: "/app"}}) {
		t.Errorf("the routes are %v", got)
	}
	rs := service(t, s.must(ask("queue", "/queue")), "queue")
	if rs.Definition.Protocol != dayfly.ProtocolHTTP || !slices.Equal(rs.Hosts, []string{"env.dev.example", "queue--env.dev.example"}) {
		t.Errorf("one that gets a route speaks %s at %v", rs.Definition.Protocol, rs.Hosts)
	}
	s.refuse(ask("worker", "/worker"), dayfly.CodeInvalid, "services.worker.route: needs a port")
	s.refuse(ask("backend", "/"), dayfly.CodeInvalid, "services.backend.route: / leads to front-end already")
	s.refuse(ask("backend", "api"), dayfly.CodeInvalid, "services.backend.route: has to be a path")
}

func TestVariablesAreThoseOfOthersThenTheFileThenTheEnvironmentThenOurs(t *testing.T) {
	s := oneShop(t)
	res := s.must(wish{EnvironmentSpec: dayfly.EnvironmentSpec{Services: []dayfly.ServiceSpec{
		{Name: "backend", Variables: map[string]string{"TEXT": "asked", "QUEUE_URL": "amqp://mine", "DAYFLY_ENV": "no", "DAYFLY_NEW": "no", "PORT": "1", "MORE": "$x ${y}"}},
	}}})
	front, back, queue := service(t, res, "front-end"), service(t, res, "backend"), service(t, res, "queue")
	want := map[string]string{
		"DAYFLY_ENV": "env", "DAYFLY_PROJECT": "shop", "DAYFLY_SERVICE": "front-end", "DAYFLY_VERSION": "c1", "DAYFLY_URL": "http://env.dev.example:8080",
		"TEXT": "one", "SELF": "env http://" + back.Address + ":7080", "BACKEND_URL": "http://somewhere.else",
		"QUEUE_URL": "tcp://" + queue.Address + ":7080", "QUEUE_HOST": queue.Address, "QUEUE_PORT": "7080",
	}
	if diff := cmp.Diff(want, front.Variables); diff != "" {
		t.Errorf("front-end: %s", diff)
	}
	want = map[string]string{
		"DAYFLY_ENV": "env", "DAYFLY_PROJECT": "shop", "DAYFLY_SERVICE": "backend", "DAYFLY_VERSION": "c1", "DAYFLY_URL": "http://backend--env.dev.example:8080",
		"TEXT": "asked", "MORE": "$x ${y}", "FRONT_END_URL": "http://" + front.Address + ":7080",
		"QUEUE_URL": "amqp://mine", "QUEUE_HOST": queue.Address, "QUEUE_PORT": "7080",
	}
	if diff := cmp.Diff(want, back.Variables); diff != "" {
		t.Errorf("backend: %s", diff)
	}
	worker := service(t, res, "worker").Variables
	if worker["DAYFLY_URL"] != "http://env.dev.example:8080" {
		t.Errorf("one without a host has the URL %q", worker["DAYFLY_URL"])
	}
	if _, has := worker["PORT"]; has {
		t.Error("PORT comes from the file")
	}
}

func TestTheHashTellsDefinitionsAndVariablesApart(t *testing.T) {
	s := oneShop(t)
	ask := func(vars map[string]string) dayfly.ResolvedService {
		return service(t, s.must(wish{EnvironmentSpec: dayfly.EnvironmentSpec{Services: []dayfly.ServiceSpec{{Name: "worker", Variables: vars}}}}), "worker")
	}
	plain, again, other := ask(nil), ask(nil), ask(map[string]string{"A": "1"})
	if plain.Hash == "" || plain.Hash != again.Hash || plain.Hash == other.Hash {
		t.Errorf("are %q, %q and %q", plain.Hash, again.Hash, other.Hash)
	}
}

func TestServicesThatDoNotExistAreAllNamedAtOnce(t *testing.T) {
	s := oneShop(t)
	_, err := s.ask(wish{EnvironmentSpec: dayfly.EnvironmentSpec{
		Only: []string{"backend", "frontend"}, Services: []dayfly.ServiceSpec{{Name: "nobody"}, {Name: "backend", URL: "ftp://x"}},
	}})
	var fields []string
	for _, p := range problems(t, err) {
		fields = append(fields, p.Field)
		if p.Field != "services.backend.url" && !strings.Contains(p.Message, "backend, front-end, queue, smoke, worker") {
			t.Errorf("does not say what there is: %s", p)
		}
	}
	if want := []string{"services", "services.backend.url", "only"}; !slices.Equal(fields, want) || dayfly.ErrorCode(err) != dayfly.CodeInvalid {
		t.Errorf("are %v (%v), want %v", fields, err, want)
	}
}

func TestServicesWithoutACommandAreAllNamedUnlessTheyAreLeftOut(t *testing.T) {
	s := newShelf(t).put(shop, "c1", map[string]string{"compose.yaml": `services:
  web: {ports: ["80"], x-dayfly: {process: {run: ./web}}}
  db: {image: postgres}
  cache: {image: redis}
`}, "main")
	_, err := s.ask(wish{})
	var fields []string
	for _, p := range problems(t, err) {
		fields = append(fields, p.Field)
		if !strings.Contains(p.Message, "x-dayfly.process.run") || !strings.Contains(p.Message, "--only") {
			t.Errorf("does not say what to do: %s", p)
		}
	}
	if want := []string{"services.cache", "services.db"}; !slices.Equal(fields, want) || dayfly.ErrorCode(err) != dayfly.CodeInvalid {
		t.Errorf("are %v (%v), want %v", fields, err, want)
	}
	s.must(wish{EnvironmentSpec: dayfly.EnvironmentSpec{Only: []string{"web"}}})

	s = newShelf(t).put(shop, "c1", map[string]string{"compose.yaml": "services:\n  web: {x-dayfly: {process: {run: ./web}}}\n  e2e: {image: cypress, x-dayfly: {test: true}}\n"}, "main")
	_, err = s.ask(wish{EnvironmentSpec: dayfly.EnvironmentSpec{Only: []string{"web"}}})
	if err == nil || strings.Contains(err.Error(), "--only") {
		t.Errorf("the advice for a test is %v", err)
	}
}

func TestMistakesInAFileKeepTheirPlaces(t *testing.T) {
	const broken = "services:\n  web:\n    x-dayfly:\n      rout: /\n      process: {run: ./web}\n"
	s := newShelf(t).put(shop, "c1", map[string]string{"compose.yaml": broken}, "main")
	_, err := s.ask(wish{})
	if all := problems(t, err); len(all) == 0 || all[0].File != "compose.yaml" || all[0].Line != 4 || all[0].Column == 0 || !strings.Contains(all[0].String(), "rout") {
		t.Errorf("are %v (%v)", all, err)
	}
	s = twoRepositories(t, backend).put(backend, "b3", map[string]string{"compose.yaml": broken}, "main")
	_, err = s.ask(wish{})
	if all := problems(t, err); len(all) == 0 || all[0].File != "compose.yaml" || all[0].Line != 4 {
		t.Errorf("of a service's own repository are %v", all)
	}
	if !strings.HasPrefix(err.Error(), "service backend:") || dayfly.ErrorCode(err) != dayfly.CodeInvalid {
		t.Errorf("does not say of which service it speaks: %v", err)
	}
}

func TestARepositoryWithoutAProjectFileIsNotFound(t *testing.T) {
	newShelf(t).put(shop, "c1", nil, "main").refuse(wish{}, dayfly.CodeNotFound, "no project file", "compose.yaml", "Procfile")
}

func TestARequiredVariableMayComeFromTheAddressesOfOthers(t *testing.T) {
	s := newShelf(t).put(shop, "c1", map[string]string{"compose.yaml": `services:
  web: {ports: ["80"], environment: {API: "${API_URL:?no api}"}, x-dayfly: {route: /, process: {run: ./web}}}
  api: {ports: ["80"], x-dayfly: {health: /, process: {run: ./api}}}
`}, "main")
	res := s.must(wish{})
	if got, want := service(t, res, "web").Variables["API"], "http://"+service(t, res, "api").Address+":7080"; got != want {
		t.Errorf("is %q, want %q", got, want)
	}
	s.refuse(wish{EnvironmentSpec: dayfly.EnvironmentSpec{Only: []string{"web"}}}, dayfly.CodeInvalid, "no api")
}

func TestAProjectIsDescribedByItsDefaultBranch(t *testing.T) {
	s := oneShop(t)
	info, err := s.resolver().Project(t.Context(), shop, dayfly.NewSecret("the-token"))
	keep, _ := dayfly.ParseDuration("5d")
	if want := (ProjectInfo{Name: "shop", DefaultBranch: "main", Commit: "c1", Keep: keep, Branches: dayfly.BranchPatterns{"*", "!dependabot/*"}}); err != nil || !reflect.DeepEqual(info, want) {
		t.Errorf("is %+v (%v), want %+v", info, err, want)
	}
	if !slices.Equal(s.shown[shop], []string{"the-token", "the-token"}) {
		t.Errorf("was shown %v", s.shown[shop])
	}
	s = newShelf(t).put(backend, "c1", map[string]string{"Procfile": "web: ./server\n"}, "main")
	if info, err := s.resolver().Project(t.Context(), backend, dayfly.Secret{}); err != nil || info.Name != "backend" {
		t.Errorf("without a name is %+v (%v)", info, err)
	}
	if _, err := s.resolver().Project(t.Context(), shop, dayfly.Secret{}); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
		t.Errorf("one that is not there is %v", err)
	}
	clean, token, err := s.resolver().CleanRepo("https://me:pw@git.example/x")
	if err != nil || clean != "https://git.example/x" || token.Reveal() != "me:pw" {
		t.Errorf("cleaned is %s with %q (%v)", clean, token.Reveal(), err)
	}
}
