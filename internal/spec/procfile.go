package spec

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"

	"github.com/dayfly-dev/dayfly"
)

// procfile reads a Procfile: a line "name: command" for each service. web is public, what
// mentions $PORT takes connections, and release is a job that all others wait for.
func procfile(name string, data []byte) (*Project, error) {
	p := &Project{File: name, definitions: map[string]dayfly.Definition{}}
	var problems []dayfly.Problem
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxSize)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		bad := func(field, format string, args ...any) {
			problems = append(problems, dayfly.Problem{File: name, Line: n, Column: 1, Field: field, Message: fmt.Sprintf(format, args...)})
		}
		service, command, ok := strings.Cut(line, ":")
		service = strings.TrimSpace(service)
		if !ok {
			bad("", "is no line of the form NAME: COMMAND")
			continue
		}
		if err := validService(service); err != nil {
			bad("", "%v", err)
			continue
		}
		if _, twice := p.definitions[service]; twice {
			bad(service, "is defined twice")
			continue
		}
		run, err := SplitCommand(strings.TrimSpace(command))
		if err != nil {
			bad(service, "%v", err)
			continue
		}
		if len(run) == 0 || run[0] == "" {
			bad(service, "has no command")
			continue
		}
		def := dayfly.Definition{Service: service, Dir: ".", Run: run, Paths: []string{"."}, Scale: dayfly.Scale{Min: 1}}
		switch {
		case service == "release":
			def.Job = true
		case service == "web":
			def.Port, def.Protocol, def.Routes = procfilePort, dayfly.ProtocolHTTP, []dayfly.PathRoute{{Path: "/"}}
		case Mentions(run, "PORT"):
			def.Port, def.Protocol = procfilePort, dayfly.ProtocolHTTP
		}
		p.order = append(p.order, service)
		p.definitions[service] = def
	}
	if err := lines.Err(); err != nil {
		problems = append(problems, dayfly.Problem{File: name, Message: err.Error()})
	}
	if len(p.order) == 0 && len(problems) == 0 {
		problems = append(problems, dayfly.Problem{File: name, Message: "defines no service: write a line such as web: ./server"})
	}
	if len(problems) > 0 {
		return nil, dayfly.Invalid(problems...)
	}
	if p.definitions["release"].Job {
		for name, def := range p.definitions {
			if name != "release" {
				def.DependsOn = map[string]dayfly.Condition{"release": dayfly.ConditionCompleted}
				p.definitions[name] = def
			}
		}
	}
	return p, nil
}

// procfilePort stands for "some port": the local runner chooses one.
const procfilePort = 80
