//go:build linux

package postgres

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dayfly-dev/dayfly"
)

// oldest is the first major version that is supported.
const oldest = 13

// programs are one installed version.
type programs struct {
	major int
	dir   string // has postgres, initdb, psql, pg_dump, pg_restore, pg_basebackup, pg_controldata
}

func (p programs) version() string         { return strconv.Itoa(p.major) }
func (p programs) path(name string) string { return filepath.Join(p.dir, name) }

// find lists what is installed, newest first.
func (e *Engine) find(ctx context.Context) ([]programs, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.found) > 0 {
		return e.found, nil // one that is installed later counts after the next start
	}
	dirs := e.o.Programs
	if dirs == nil {
		for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/lib/postgresql*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/pgsql/bin"} {
			found, _ := filepath.Glob(pattern) // the patterns are right
			dirs = append(dirs, found...)
		}
		if config, err := exec.LookPath("pg_config"); err == nil {
			if out, err := exec.CommandContext(ctx, config, "--bindir").Output(); err == nil { //nolint:forbidigo // a program that PATH names, and an argument of ours
				dirs = append(dirs, strings.TrimSpace(string(out)))
			}
		}
		dirs = append(dirs, filepath.SplitList(os.Getenv("PATH"))...)
	}
	seen := map[int]bool{}
	var found []programs
	var old string
	for _, dir := range dirs {
		if !filepath.IsAbs(dir) || !complete(dir) {
			continue
		}
		// postgres --version works as root, too: it is answered before the check of the user.
		out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output() //nolint:forbidigo // the server's program in a folder for programs
		if err != nil {
			continue
		}
		major := majorOf(string(out))
		if major > 0 && major < oldest {
			old = strconv.Itoa(major)
		}
		if major >= oldest && !seen[major] {
			seen[major] = true
			found = append(found, programs{major, dir})
		}
	}
	if len(found) == 0 {
		if old != "" {
			return nil, dayfly.Errorf(dayfly.CodeUnavailable, "PostgreSQL %s is too old: install %d or newer, on Debian and Ubuntu with `apt install postgresql`", old, oldest)
		}
		return nil, dayfly.Errorf(dayfly.CodeUnavailable, "PostgreSQL is not installed on this server: install it, on Debian and Ubuntu with `apt install postgresql`, on Fedora with `dnf install postgresql-server postgresql-contrib`, and restart dayfly")
	}
	slices.SortFunc(found, func(a, b programs) int { return cmp.Compare(b.major, a.major) })
	e.found = found
	return found, nil
}

// complete says whether a folder has all programs that are used.
func complete(dir string) bool {
	for _, name := range []string{"postgres", "initdb", "psql", "pg_dump", "pg_restore", "pg_basebackup", "pg_controldata"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}

// majorOf reads "postgres (PostgreSQL) 15.18 (Debian ...)"; 0 = it cannot be understood.
func majorOf(out string) int {
	_, version, _ := strings.Cut(out, "(PostgreSQL) ")
	digits := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if digits < 0 {
		digits = len(version)
	}
	major, _ := strconv.Atoi(version[:digits]) // 0 for what is no number
	return major
}

// newest gives the newest version that is installed.
func (e *Engine) newest(ctx context.Context) (programs, error) {
	found, err := e.find(ctx)
	if err != nil {
		return programs{}, err
	}
	return found[0], nil
}

// major gives the programs of one version.
func (e *Engine) major(ctx context.Context, version string) (programs, error) {
	found, err := e.find(ctx)
	if err != nil {
		return programs{}, err
	}
	for _, p := range found {
		if p.version() == version {
			return p, nil
		}
	}
	return programs{}, dayfly.Errorf(dayfly.CodeUnavailable, "this needs PostgreSQL %s, which is not installed on this server: install it, on Debian and Ubuntu with `apt install postgresql-%s`, and restart dayfly", version, version)
}

// ofDir gives the programs that fit a cluster.
func (e *Engine) ofDir(ctx context.Context, data string) (programs, error) {
	b, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if err != nil {
		return programs{}, dayfly.Errorf(dayfly.CodeInvalid, "%s is no data folder of PostgreSQL: it has no PG_VERSION", data)
	}
	return e.major(ctx, strings.TrimSpace(string(b)))
}
