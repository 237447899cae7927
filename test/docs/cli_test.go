package docs_test

import (
	"bytes"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/cli"
)

// flag is what the help of a command says about one of its flags.
type flag struct {
	name, otherwise string // its default, "" = none is shown
}

// program is what help says about all commands, by their paths such as "project add";
// "" is the program itself, whose flags are everybody's.
type program map[string][]flag

var (
	subcommand = regexp.MustCompile(`^  ([a-z][a-z-]*)  +\S`)
	flagLine   = regexp.MustCompile(`^ +(?:-[a-zA-Z], )?--([a-z][a-z-]*)`)
	otherwise  = regexp.MustCompile(`\(default (.*)\)$`)
)

// run runs a command in this process.
func run(t *testing.T, env map[string]string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = cli.Main(t.Context(), args, cli.Streams{
		In: strings.NewReader(""), Out: &stdout, Err: &stderr, Getenv: func(name string) string { return env[name] },
	}, "test")
	return code, stdout.String(), stderr.String()
}

// readProgram asks every command for its help.
func readProgram(t *testing.T) program {
	t.Helper()
	p := program{}
	var read func(path []string)
	read = func(path []string) {
		_, help, _ := run(t, nil, append(slices.Clone(path), "--help")...)
		name := strings.Join(path, " ")
		p[name] = []flag{}
		part := ""
		for line := range strings.Lines(help) {
			line = strings.TrimRight(line, "\n")
			if line != "" && line[0] != ' ' {
				part = line
			}
			switch part {
			case "Available Commands:":
				if m := subcommand.FindStringSubmatch(line); m != nil {
					read(append(slices.Clone(path), m[1]))
				}
			case "Flags:":
				m := flagLine.FindStringSubmatch(line)
				if m == nil || m[1] == "help" && name != "" {
					continue
				}
				f := flag{name: m[1]}
				if d := otherwise.FindStringSubmatch(line); d != nil {
					f.otherwise = strings.Trim(d[1], `"`)
				}
				p[name] = append(p[name], f)
			}
		}
	}
	read(nil)
	for _, known := range []string{"create", "project add", "completion bash"} {
		if _, ok := p[known]; !ok {
			t.Fatalf("help does not show %q: it is not read as it should be", known)
		}
	}
	return p
}

// described gives what docs/cli.md says about a command: its section, and what that
// refers to. The shells of completion have one section together.
func described(p page, command string) (string, bool) {
	text, ok := p.section("dayfly " + command)
	if !ok {
		parent, _, _ := strings.Cut(command, " ")
		text, _ = p.section("dayfly " + parent)
		ok = parent != command && mentions(text, "dayfly "+command)
	}
	if strings.Contains(text, "](#waiting)") {
		waiting, _ := p.section("Waiting")
		text = waiting + text
	}
	return text, ok
}

func TestEveryCommandAndFlagIsDescribedWithItsDefault(t *testing.T) {
	p := readPage(t, "docs/cli.md")
	home, _ := os.UserHomeDir()
	for command, flags := range readProgram(t) {
		text, ok := described(p, command)
		if command == "" {
			text, ok = p.section("Global flags and variables")
		}
		if !ok {
			t.Errorf("docs/cli.md has no section for dayfly %s", command)
			continue
		}
		if command != "" && command != "project" && !strings.Contains(text, "Exit code") {
			t.Errorf("docs/cli.md does not say with which exit codes dayfly %s ends", command)
		}
		for _, f := range flags {
			line, ok := row(text, "--"+f.name)
			if !ok {
				t.Errorf("docs/cli.md does not describe dayfly %s --%s", command, f.name)
				continue
			}
			value := f.otherwise
			if strings.HasSuffix(value, "m0s") { // 10m0s
				value = strings.TrimSuffix(value, "0s")
			}
			if home != "" {
				value = strings.Replace(value, home+"/", "~/", 1)
			}
			if !strings.Contains(line, "`"+value+"`") && value != "" {
				t.Errorf("docs/cli.md does not say that %s is the default of dayfly %s --%s", f.otherwise, command, f.name)
			}
			if variable := "DAYFLY_" + strings.ToUpper(strings.ReplaceAll(f.name, "-", "_")); command == "server" && !strings.Contains(line, "`"+variable+"`") {
				t.Errorf("docs/cli.md does not name the variable %s", variable)
			}
		}
	}
}

func TestNoCommandOrFlagIsDescribedThatDoesNotExist(t *testing.T) {
	program := readProgram(t)
	firstCell := regexp.MustCompile("(?m)^\\|[^|]*`--[a-z][^|]*\\|")
	name := regexp.MustCompile("`--([a-z][a-z-]*)")
	for _, s := range readPage(t, "docs/cli.md").sections {
		command, ok := strings.CutPrefix(s.title, "dayfly ")
		if !ok {
			continue
		}
		if runtime.GOOS != "linux" && (command == "server" || command == "demo") {
			continue
		}
		flags, ok := program[command]
		if !ok && command != "completion" {
			t.Errorf("docs/cli.md describes dayfly %s, which does not exist", command)
			continue
		}
		for shell, more := range program {
			if strings.HasPrefix(shell, command+" ") {
				flags = append(slices.Clone(flags), more...)
			}
		}
		for _, cell := range firstCell.FindAllString(s.text, -1) {
			for _, m := range name.FindAllStringSubmatch(cell, -1) {
				if !slices.ContainsFunc(flags, func(f flag) bool { return f.name == m[1] }) {
					t.Errorf("docs/cli.md describes dayfly %s --%s, which does not exist", command, m[1])
				}
			}
		}
	}
}

func TestExamplesUseCommandsAndFlagsThatExist(t *testing.T) {
	program := readProgram(t)
	example := regexp.MustCompile(`^(?:bin/)?dayfly ([a-z].*)$`)
	given := regexp.MustCompile(`--([a-z][a-z-]*)`)
	checked := 0
	for _, name := range markdown(t) {
		for _, line := range commands(blocks(readPage(t, name).text)[""]) {
			m := example.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			checked++
			words := strings.Fields(m[1])
			command := words[0]
			if _, ok := program[command]; !ok {
				if runtime.GOOS == "linux" || command != "server" && command != "demo" {
					t.Errorf("%s: there is no command dayfly %s", name, command)
				}
				continue
			}
			if len(words) > 1 {
				if _, ok := program[command+" "+words[1]]; ok {
					command += " " + words[1]
				}
			}
			call, _, _ := strings.Cut(m[1], " #")
			for _, g := range given.FindAllStringSubmatch(call, -1) {
				known := append(slices.Clone(program[command]), program[""]...)
				if !slices.ContainsFunc(known, func(f flag) bool { return f.name == g[1] }) {
					t.Errorf("%s: dayfly %s has no flag --%s", name, command, g[1])
				}
			}
		}
	}
	if checked == 0 {
		t.Error("no example was found: the pages are not read as they should")
	}
}

// commands gives the command lines of blocks: those after "$ ", or all where there is none.
func commands(blocks []string) []string {
	var all []string
	for _, block := range blocks {
		prompt := strings.HasPrefix(block, "$ ")
		for line := range strings.Lines(block) {
			if line, ok := strings.CutPrefix(strings.TrimSpace(line), "$ "); ok == prompt {
				all = append(all, line)
			}
		}
	}
	return all
}
