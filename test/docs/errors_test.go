package docs_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
)

// sources parses the files of a package, without its tests.
func sources(t *testing.T, dir string) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s has no files: %v", dir, err)
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

func text(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// constants gives the values of package dayfly's string constants whose names are prefix
// and a word, such as CodeNotFound.
func constants(t *testing.T, prefix string) []string {
	t.Helper()
	var values []string
	for _, f := range sources(t, ".") {
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			for i, name := range spec.Names {
				if rest, ok := strings.CutPrefix(name.Name, prefix); !ok || rest == "" || rest[0] < 'A' || rest[0] > 'Z' || i >= len(spec.Values) {
					continue
				}
				if value, ok := text(spec.Values[i]); ok {
					values = append(values, value)
				}
			}
			return true
		})
	}
	return values
}

// literals gives the strings that a package sets a field of this name to, or gives to its
// function refuse, whose second argument is a code.
func literals(t *testing.T, dir, field string) []string {
	t.Helper()
	var values []string
	add := func(e ast.Expr) {
		if value, ok := text(e); ok && !slices.Contains(values, value) {
			values = append(values, value)
		}
	}
	for _, f := range sources(t, dir) {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && key.Name == field {
					add(n.Value)
				}
			case *ast.AssignStmt:
				for i, to := range n.Lhs {
					if s, ok := to.(*ast.SelectorExpr); ok && s.Sel.Name == field && len(n.Rhs) == len(n.Lhs) {
						add(n.Rhs[i])
					}
				}
			case *ast.CallExpr:
				if called, ok := n.Fun.(*ast.Ident); ok && called.Name == "refuse" && field == "Code" && len(n.Args) > 1 {
					add(n.Args[1])
				}
			}
			return true
		})
	}
	return values
}

// meaning is what docs/errors.md says a code means to machines.
type meaning struct{ status, exit int }

// documented reads the table of codes.
func documented(t *testing.T) map[string]meaning {
	t.Helper()
	rows := regexp.MustCompile("(?m)^\\| \\[`([a-z_]+)`\\]\\(#[a-z_]+\\) \\| (\\d+) \\| (\\d+) \\|")
	all := map[string]meaning{}
	for _, m := range rows.FindAllStringSubmatch(readPage(t, "docs/errors.md").text, -1) {
		status, _ := strconv.Atoi(m[2])
		exit, _ := strconv.Atoi(m[3])
		all[m[1]] = meaning{status, exit}
	}
	if len(all) == 0 {
		t.Fatal("docs/errors.md has no table of codes")
	}
	return all
}

func TestEveryCodeIsDescribedWithWhatToDoNext(t *testing.T) {
	p := readPage(t, "docs/errors.md")
	table := documented(t)
	codes := append(constants(t, "Code"), literals(t, "internal/api", "Code")...)
	for _, known := range []string{"invalid", "foreign_origin"} {
		if !slices.Contains(codes, known) {
			t.Fatalf("the code %s was not found: the sources are not read as they should be", known)
		}
	}
	for _, code := range codes {
		if _, ok := table[code]; !ok {
			t.Errorf("the table of docs/errors.md does not have %s", code)
		}
		section, ok := p.section(code)
		if !ok {
			t.Errorf("docs/errors.md has no section %s", code)
		} else if !strings.Contains(section, "\nNext: ") && code != string(dayfly.CodeConflict) { // whose section says it case by case
			t.Errorf("docs/errors.md does not say what to do next after %s", code)
		}
	}
	for code := range table {
		if !slices.Contains(codes, code) {
			t.Errorf("docs/errors.md describes %s, which no answer has", code)
		}
	}
}

func TestEveryCodeOfTheProxyIsDescribed(t *testing.T) {
	section, _ := readPage(t, "docs/errors.md").section("Answers of the proxy")
	codes := literals(t, "internal/proxy", "Code")
	if !slices.Contains(codes, "starting") {
		t.Fatalf("the codes are not read as they should be: %q", codes)
	}
	for _, code := range codes {
		if _, ok := row(section, code); !ok {
			t.Errorf("docs/errors.md does not describe %s of the proxy", code)
		}
	}
}

func TestCodesHaveTheStatusThatIsDescribed(t *testing.T) {
	table := documented(t)
	for _, code := range constants(t, "Code") {
		w := get(t, newAPI(dayfly.Errorf(dayfly.Code(code), "something")), "/v1/projects", nil)
		if w.Code != table[code].status {
			t.Errorf("%s is answered with %d; docs/errors.md says %d", code, w.Code, table[code].status)
		}
	}
}

func TestCodesHaveTheExitCodeThatIsDescribed(t *testing.T) {
	exits, _ := readPage(t, "docs/cli.md").section("Exit codes")
	for code, want := range documented(t) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(want.status)
			_ = json.NewEncoder(w).Encode(map[string]string{"code": code, "detail": "something"})
		}))
		exit, out, errs := run(t, map[string]string{"DAYFLY_SERVER": server.URL}, "list", "-o", "json")
		server.Close()
		if exit != want.exit {
			t.Errorf("a command that is answered %s ends with %d; docs/errors.md says %d", code, exit, want.exit)
		}
		if out != "" || !strings.Contains(errs, "something") {
			t.Errorf("a command that is answered %s prints %q on standard output and %q on standard error", code, out, errs)
		}
		if !strings.Contains(exits, "\n| "+strconv.Itoa(exit)+" |") {
			t.Errorf("docs/cli.md does not describe the exit code %d", exit)
		}
	}
}
