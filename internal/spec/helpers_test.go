package spec

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/sirupsen/logrus"

	"github.com/dayfly-dev/dayfly"
)

func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard) // as in main
	os.Exit(m.Run())
}

// folder writes the files of an archive into a new folder. A file whose name ends in @ is a
// symbolic link to its content.
func folder(t testing.TB, archive string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range txtar.Parse([]byte(archive)).Files {
		name := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if link, is := strings.CutSuffix(name, "@"); is {
			if err := os.Symlink(strings.TrimSpace(string(f.Data)), link); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(name, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// load reads the project of an archive, or a Compose file.
func load(t testing.TB, archive string) (*Project, error) {
	t.Helper()
	if !strings.HasPrefix(archive, "-- ") {
		archive = "-- compose.yaml --\n" + archive
	}
	return LoadDir(folder(t, archive), Options{})
}

func mustLoad(t testing.TB, archive string) *Project {
	t.Helper()
	p, err := load(t, archive)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// definition gives the definition of a service with variables.
func definition(t testing.TB, p *Project, service string, vars map[string]string) dayfly.Definition {
	t.Helper()
	def, err := p.Definition(service, vars)
	if err != nil {
		t.Fatal(err)
	}
	return def
}

// problem gives what is wrong, one a line.
func problem(t testing.TB, err error) string {
	t.Helper()
	var e *dayfly.Error
	if err == nil {
		return ""
	}
	if !errors.As(err, &e) {
		t.Fatalf("%v (%T) is no error for users", err, err)
	}
	return e.Error()
}
