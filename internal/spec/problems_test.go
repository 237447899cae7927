package spec

import (
	"strings"
	"testing"
)

// mistakes are files, and all that is wrong with them.
var mistakes = []struct{ name, file, want string }{
	{"no file", "-- x --\n", `there is no project file: add a compose.yaml with x-dayfly, or a Procfile with a line such as web: ./server`},
	{"empty file", "\n", `compose.yaml: services: there are none`},
	{"no services", "name: shop\n", `compose.yaml:1:1: services: there are none`},
	{"empty services", "services: {}\n", `compose.yaml:1:1: services: there are none`},
	{"services as a list", "services: []\n", `compose.yaml:1:1: services: has to be a mapping`},
	{"a service without content", "services: {web: }\n", `compose.yaml:1:12: services.web: has to be a mapping`},
	{"only services of profiles", "services:\n  a: {image: x, profiles: [debug]}\n", `compose.yaml:1:1: services: there are none`},
	{"a typing error at the top", "servces: {}\n", `
compose.yaml:1:1: servces: is no known key; did you mean services?
compose.yaml:1:1: services: there are none`},
	{"names", "services: {Web_1: {image: x}, 'a b': {image: x}}\n", `
compose.yaml:1:12: services.Web_1: the service "Web_1" cannot be part of a host name: call it "web-1"
compose.yaml:1:31: services.a b: the service "a b" cannot be part of a host name: call it "a-b"`},
	{"no YAML", "services:\n  web: [\n", `compose.yaml:3: is no YAML: did not find expected node content`},
	{"a tab", "services:\n\tweb: x\n", `compose.yaml:2: is no YAML: found character that cannot start any token`},
	{"a list at the top", "- web\n", `compose.yaml:1: has to be a mapping of keys to values`},
	{"two documents", "services: {}\n---\nservices: {}\n", `compose.yaml:2: begins a second document: a file can have one only`},
	{"keys", "services:\n  a: {image: x}\n  a: {image: y}\n1: x\n? [b]\n: c\n<<: 5\n", `
compose.yaml:3:3: services.a: is there twice
compose.yaml:4:1: 1 is no text and cannot be a key: put it into quotes
compose.yaml:5:3: this is no text and cannot be a key: put it into quotes
compose.yaml:7:5: <<: has to be a mapping or a list of mappings`},

	{"what the schema of Compose refuses", `
services:
  web:
    imge: x
    ports: [{targt: 80}, [1]]
    environment: 5
    build: {contxt: .}
    depends_on: {web2: {condition: healthy}, web3: {}}
    healthcheck: {interval: 2x, retries: [1]}
    stop_grace_period: 1d
    command: {a: b}
    volumes: [{type: foo}]
    tty: 1
  b: {image: 5}
volumes: []
`, `
compose.yaml:4:5: services.web.imge: is no known key; did you mean image?
compose.yaml:5:14: services.web.ports[0].targt: is no known key; did you mean target?
compose.yaml:5:26: services.web.ports[1]: has to be a number or a text or a mapping
compose.yaml:6:5: services.web.environment: has to be a mapping or a list
compose.yaml:7:13: services.web.build.contxt: is no known key; did you mean context?
compose.yaml:8:25: services.web.depends_on.web2.condition: has to be service_started or service_healthy or service_completed_successfully
compose.yaml:8:46: services.web.depends_on.web3.condition: is missing
compose.yaml:9:19: services.web.healthcheck.interval: "2x" is no duration of Compose: write a number and s, m or h, such as 1m30s
compose.yaml:9:33: services.web.healthcheck.retries: has to be a number or a text
compose.yaml:10:5: services.web.stop_grace_period: "1d" is no duration of Compose: write a number and s, m or h, such as 1m30s
compose.yaml:11:5: services.web.command: has to be a text or a list
compose.yaml:12:16: services.web.volumes[0].type: has to be bind or volume or tmpfs or cluster or npipe or image
compose.yaml:13:5: services.web.tty: has to be true or false or a text
compose.yaml:14:7: services.b.image: has to be a text
compose.yaml:15:1: volumes: has to be a mapping`},
	{"a value twice", "services:\n  a: {image: x, ports: ['80', '80']}\n", `compose.yaml:2:17: services.a.ports: has the same value twice, in [0] and [1]`},
	{"ports", "services:\n  a: {image: x, ports: [abc, '80:x'], expose: [b]}\n", `
compose.yaml:2:25: services.a.ports[0]: "abc" is no port: write its number, such as 8080
compose.yaml:2:30: services.a.ports[1]: "80:x" is no port: write its number, such as 8080
compose.yaml:2:48: services.a.expose[0]: "b" is no port: write its number, such as 8080`},
	{"variables in another form", "services:\n  a: {image: x, environment: {A: '${', C: '${C!}'}}\n", `
compose.yaml:2:31: services.a.environment.A: "${" uses a variable in a way that Compose does not know: write $$ for a dollar sign
compose.yaml:2:40: services.a.environment.C: "${C!}" uses a variable in a way that Compose does not know: write $$ for a dollar sign`},
	{"extends of nothing", "services:\n  a: {extends: b, image: x}\n", `compose.yaml:2:3: cannot extend service "a" in compose.yaml: service "b" not found`},
	{"extends of itself", "services:\n  a: {extends: a, image: x}\n", `compose.yaml:1:1: Circular reference: a in compose.yaml extends a in compose.yaml`},

	{"x-dayfly at the top", `
x-dayfly:
  kep: 5d
  keep: soon
  branches: {a: b}
  databases: {db: {templat: x}}
services:
  web: {image: x}
`, `
compose.yaml:3:3: x-dayfly.kep: is no known key; did you mean keep?
compose.yaml:4:9: x-dayfly.keep: "soon" is no duration: write a number and s, m, h, d or w, such as 36h or 5d
compose.yaml:5:13: x-dayfly.branches: has to be a list of texts
compose.yaml:6:20: x-dayfly.databases.db.templat: is no known key; did you mean template?`},
	{"branches", "x-dayfly:\n  branches: [\"\", \"!\", a b, \"a\\tb\", \"\\a\", '*', !!str 5]\nservices: {web: {image: x}}\n", `
compose.yaml:2:14: x-dayfly.branches[0]: is empty: * stands for all branches
compose.yaml:2:18: x-dayfly.branches[1]: says nothing: the ! needs a pattern behind it
compose.yaml:2:23: x-dayfly.branches[2]: "a b" has a space or a control character, which no branch has
compose.yaml:2:28: x-dayfly.branches[3]: "a\tb" has a space or a control character, which no branch has
compose.yaml:2:36: x-dayfly.branches[4]: "\a" has a space or a control character, which no branch has`},
	{"one pattern of branches", "x-dayfly: {branches: \"!\"}\nservices: {web: {image: x}}\n", `compose.yaml:1:22: x-dayfly.branches: says nothing: the ! needs a pattern behind it`},
	{"patterns of other kinds", "x-dayfly:\n  branches: [{a: b}, ~, '']\nservices: {web: {image: x}}\n", `
compose.yaml:2:14: x-dayfly.branches[0]: has to be a text
compose.yaml:2:22: x-dayfly.branches[1]: has to be a text`},
	{"x-dayfly at the top of another kind", "x-dayfly: [keep]\nservices: {web: {image: x}}\n", `compose.yaml:1:11: x-dayfly: has to be a mapping`},
	{"keep of nothing", "x-dayfly: {keep: 0s}\nservices: {web: {image: x}}\n", `compose.yaml:1:18: x-dayfly.keep: has to be more than 0`},
	{"databases as a list", "x-dayfly: {databases: [db]}\nservices: {web: {image: x}}\n", `compose.yaml:1:23: x-dayfly.databases: has to be a mapping of names to their settings`},
	{"x-dayfly of services", `
services:
  web:
    ports: ["80"]
    x-dayfly:
      rout: /
      route: api
      health: healthz
      own: maybe
      test: [true]
      protocol: udp
      paths: [../lib, /etc]
      scale: {min: 2, max: 1, target: 0, idle: x}
      release: {strategy: canary, pause: long}
      process: {biuld: make, run: "a | b", build: ["x; y"], writable: x, build_env: {A: B}}
  b:
    x-dayfly: 5
  c:
    x-dayfly: {process: run}
  d:
    x-dayfly: {process: {build: make}}
  e:
    x-dayfly: {process: {run: ""}, scale: 3, release: direct}
  f:
    x-dayfly: {process: {run: []}, route: {path: /, stripp: true}}
`, `
compose.yaml:6:7: services.web.x-dayfly.rout: is no known key; did you mean route?
compose.yaml:7:14: services.web.x-dayfly.route: has to be a path that begins with /
compose.yaml:8:15: services.web.x-dayfly.health: has to be a path that begins with /
compose.yaml:9:12: services.web.x-dayfly.own: has to be true or false
compose.yaml:10:13: services.web.x-dayfly.test: has to be true or false
compose.yaml:11:17: services.web.x-dayfly.protocol: has to be http, h2c or tcp
compose.yaml:12:14: services.web.x-dayfly.paths: "../lib" lies outside of the repository
compose.yaml:12:14: services.web.x-dayfly.paths: "/etc" lies outside of the repository
compose.yaml:13:28: services.web.x-dayfly.scale.max: is less than min
compose.yaml:13:39: services.web.x-dayfly.scale.target: has to be a whole number of at least 1
compose.yaml:13:48: services.web.x-dayfly.scale.idle: "x" is no duration: write a number and s, m, h, d or w, such as 36h or 5d
compose.yaml:14:27: services.web.x-dayfly.release.strategy: this version has the strategy direct only
compose.yaml:14:42: services.web.x-dayfly.release.pause: "long" is no duration: write a number and s, m, h, d or w, such as 36h or 5d
compose.yaml:15:17: services.web.x-dayfly.process.biuld: is no known key; did you mean build?
compose.yaml:15:35: services.web.x-dayfly.process.run: an unquoted | needs a shell, and none is run: write ["sh", "-c", "a | b"] if you want one
compose.yaml:15:52: services.web.x-dayfly.process.build[0]: an unquoted ; needs a shell, and none is run: write ["sh", "-c", "x; y"] if you want one
compose.yaml:15:71: services.web.x-dayfly.process.writable: has to be true or false
compose.yaml:15:85: services.web.x-dayfly.process.build_env: has to be a list of texts
compose.yaml:16:3: services.b: has nothing to run: add x-dayfly.process, build or image
compose.yaml:17:15: services.b.x-dayfly: has to be a mapping
compose.yaml:19:25: services.c.x-dayfly.process: has to be a mapping with run, and build where something is to be built
compose.yaml:21:16: services.d.x-dayfly.process.run: is missing: the command that starts the service
compose.yaml:23:31: services.e.x-dayfly.process.run: is empty
compose.yaml:23:43: services.e.x-dayfly.scale: has to be a mapping
compose.yaml:23:55: services.e.x-dayfly.release: has to be a mapping
compose.yaml:25:31: services.f.x-dayfly.process.run: is empty
compose.yaml:25:36: services.f.x-dayfly.route: needs a port: add ports
compose.yaml:25:53: services.f.x-dayfly.route.stripp: is no known key; did you mean strip?`},

	{"what is wrong between services", `
services:
  a: {image: x, ports: ["80"], depends_on: [nobody, tool], x-dayfly: {route: [/, /api/]}}
  b: {image: x, ports: ["80"], x-dayfly: {route: /api}}
  c: {ports: ["80"], x-dayfly: {route: /}}
  d: {image: x, x-dayfly: {route: /d, health: /healthz}}
  e: {image: x, ports: ["80"], x-dayfly: {route: /e, protocol: tcp}}
  tool: {image: x, profiles: [debug]}
`, `
compose.yaml:3:32: services.a.depends_on.nobody: there is no service "nobody"
compose.yaml:3:32: services.a.depends_on.tool: tool is in a profile, and none is ever chosen
compose.yaml:4:43: services.b.x-dayfly.route: a has the route /api already
compose.yaml:5:3: services.c: has nothing to run: add x-dayfly.process, build or image
compose.yaml:5:33: services.c.x-dayfly.route: a has the route / already
compose.yaml:6:28: services.d.x-dayfly.route: needs a port: add ports
compose.yaml:6:39: services.d.x-dayfly.health: needs a port: add ports
compose.yaml:7:43: services.e.x-dayfly.route: is for HTTP, and the protocol is tcp`},
	{"a cycle", "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [c]}\n  c: {image: x, depends_on: {b: {condition: service_healthy}}}\n",
		`compose.yaml:3:17: services.b.depends_on: is a cycle: b -> c -> b`},
	{"a service that waits for itself", "services:\n  a: {image: x, depends_on: [a]}\n", `compose.yaml:2:17: services.a.depends_on: is a cycle: a -> a`},
	{"mistakes of all kinds at once", "services:\n  a: {imag: x, depends_on: [b, a], x-dayfly: {rute: /}}\n", `
compose.yaml:2:3: services.a: has nothing to run: add x-dayfly.process, build or image
compose.yaml:2:7: services.a.imag: is no known key; did you mean image?
compose.yaml:2:16: services.a.depends_on: is a cycle: a -> a
compose.yaml:2:16: services.a.depends_on.b: there is no service "b"
compose.yaml:2:47: services.a.x-dayfly.rute: is no known key; did you mean route?`},
	{"mistakes in several files", `
-- compose.yaml --
include: [sub/more.yaml]
services:
  a: {extends: {file: base.yaml, service: base}, x-dayfly: {kep: 1}}
-- compose.override.yaml --
services:
  a: {x-dayfly: {rote: /}}
-- sub/more.yaml --
services:
  b: {image: 5}
-- base.yaml --
services:
  base: {imag: x, x-dayfly: {process: {run: "a;b"}}}
`, `
base.yaml:2:10: services.base.imag: is no known key; did you mean image?
base.yaml:2:45: services.base.x-dayfly.process.run: an unquoted ; needs a shell, and none is run: write ["sh", "-c", "a;b"] if you want one
compose.override.yaml:2:18: services.a.x-dayfly.rote: is no known key; did you mean route?
compose.yaml:3:61: services.a.x-dayfly.kep: is no known key
sub/more.yaml:2:7: services.b.image: has to be a text`},
	{"a mistake that only the merged files make", `
-- compose.yaml --
services:
  a: {x-dayfly: {process: {build: make}, scale: {max: 2}}}
-- compose.override.yaml --
services:
  a: {x-dayfly: {scale: {min: 3}}}
`, `
compose.yaml:2:18: services.a.x-dayfly.process.run: is missing: the command that starts the service
compose.yaml:2:50: services.a.x-dayfly.scale.max: is less than min`},

	{"variables without a name", "-- compose.yaml --\nservices: {a: {image: x}}\n-- .env --\nA=1\nB-C D=2\n",
		`.env:2: cannot be read: key cannot contain a space`},
	{"a file of variables that is not there", "services:\n  a: {image: x, env_file: [a.env, {path: b.env}]}\n  b: {image: x, env_file: c.env}\n", `
compose.yaml:2:28: services.a.env_file[0]: "a.env" cannot be read: it does not exist
compose.yaml:2:35: services.a.env_file[1]: "b.env" cannot be read: it does not exist
compose.yaml:3:17: services.b.env_file[0]: "c.env" cannot be read: it does not exist`},
	{"a file of variables with a mistake", "-- compose.yaml --\nservices:\n  a: {image: x, env_file: a.env}\n-- a.env --\nA=1\nB C=2\n",
		`a.env:2: cannot be read: key cannot contain a space`},

	{"a Procfile", "-- Procfile --\n# all\nweb bin/web\n\nWeb: x\na: b | c\na: 'x\nb:\nc: x\nc: y\n", `
Procfile:2:1: is no line of the form NAME: COMMAND
Procfile:4:1: the service "Web" cannot be part of a host name: call it "web"
Procfile:5:1: a: an unquoted | needs a shell, and none is run: write ["sh", "-c", "b | c"] if you want one
Procfile:6:1: a: a single quote is not closed in "'x"
Procfile:7:1: b: has no command
Procfile:9:1: c: is defined twice`},
	{"an empty Procfile", "-- Procfile --\n# nothing\n", `Procfile: defines no service: write a line such as web: ./server`},
}

func TestAllThatIsWrongWithAProjectIsSaidAtOnceWithItsPlace(t *testing.T) {
	for _, c := range mistakes {
		t.Run(c.name, func(t *testing.T) {
			file := c.file
			if strings.HasPrefix(file, "\n-- ") {
				file = file[1:]
			}
			_, err := load(t, file)
			if got, want := problem(t, err), strings.TrimPrefix(c.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
