//go:build linux

package local

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/logfile"
	"github.com/dayfly-dev/dayfly/internal/spec"
)

// passed says whether a variable of the server is handed on to what it starts.
func (r *Runner) passed(name string) bool {
	switch name {
	case "GOPATH", "GOCACHE", "GOMODCACHE", "GOBIN", "GOENV", "npm_config_cache", "npm_config_prefix":
		return false // folders of the project's own
	case "PATH", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE":
		return true
	case "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy":
		return true
	}
	return strings.HasPrefix(name, "LC_") || strings.HasPrefix(name, "GO") || strings.HasPrefix(name, "npm_config_") ||
		slices.Contains(r.PassEnv, name)
}

// inherited is what builds and services of a project have in common.
func (r *Runner) inherited(d dayfly.Deployment, tree string) (map[string]string, error) {
	env := map[string]string{"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, v := range os.Environ() {
		if name, value, _ := strings.Cut(v, "="); r.passed(name) {
			env[name] = value
		}
	}
	noProxy := append([]string{"127.0.0.0/8", "localhost", ".internal"}, r.NoProxy...)
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		all := noProxy
		if env[name] != "" {
			all = append([]string{env[name]}, noProxy...)
		}
		env[name] = strings.Join(all, ",")
	}
	cache := r.path("cache", folderName(d.Key.Project))
	for name, dir := range map[string]string{
		"GOPATH": "go", "GOCACHE": "go-build", "GOMODCACHE": "go/pkg/mod", "npm_config_cache": "npm", "npm_config_prefix": "npm-prefix", "HOME": "home", "TMPDIR": "tmp",
	} {
		env[name] = filepath.Join(cache, dir)
		if err := os.MkdirAll(env[name], 0o755); err != nil {
			return nil, err
		}
	}
	if err := r.ownCache(d, cache); err != nil {
		return nil, err
	}
	env["GOENV"] = "off"
	if u, err := user.Current(); err == nil {
		env["USER"], env["LOGNAME"] = u.Username, u.Username
	}
	env["GIT_CONFIG_COUNT"], env["GIT_CONFIG_KEY_0"], env["GIT_CONFIG_VALUE_0"] = "1", "safe.directory", tree
	return env, nil
}

// ownCache gives the folders of a project's cache to the user of its builds.
func (r *Runner) ownCache(d dayfly.Deployment, cache string) error {
	uid, err := r.buildUser(d.Key.Project)
	if err != nil || uid == 0 {
		return err
	}
	for _, dir := range []string{"", "go", "go/pkg", "go/pkg/mod", "go-build", "npm", "npm-prefix", "home", "tmp"} {
		if err := os.Lchown(filepath.Join(cache, dir), uid, uid); err != nil {
			return err
		}
	}
	return nil
}

// folderName is a project's name, which is a DNS label, as a folder.
func folderName(project string) string { return "project-" + dayfly.Slug(project) }

// buildEnv is what a build sees: nothing of an environment but what it asks for.
func (r *Runner) buildEnv(d dayfly.Deployment, tree string) (map[string]string, error) {
	env, err := r.inherited(d, tree)
	if err != nil {
		return nil, err
	}
	for _, name := range d.Definition.BuildEnv {
		if value, ok := d.Variables[name]; ok {
			env[name] = value
		}
	}
	return env, nil
}

// command puts together what starts the instance.
func (i *instance) command(d dayfly.Deployment, build string) (command, error) {
	r := i.k.r
	tree := r.path("builds", build)
	private := r.path("private", d.ID, i.rec.ID)
	if err := os.MkdirAll(private, 0o711); err != nil {
		return command{}, err
	}
	user := i.k.rec.User
	for _, dir := range []string{"data", "home", "tmp"} {
		err := os.Mkdir(filepath.Join(private, dir), 0o700)
		if err == nil {
			err = chown(filepath.Join(private, dir), user)
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return command{}, err
		}
	}
	if d.Definition.Writable {
		own := filepath.Join(private, "tree")
		if _, err := os.Stat(own); errors.Is(err, os.ErrNotExist) {
			if err := errors.Join(copyTree(tree, own), chown(own, user)); err != nil {
				return command{}, err
			}
		}
		tree = own
	}
	env, err := r.inherited(d, tree)
	if err != nil {
		return command{}, err
	}
	if user != 0 {
		env["USER"], env["LOGNAME"] = userName, userName
	}
	env["HOME"], env["TMPDIR"] = filepath.Join(private, "home"), filepath.Join(private, "tmp")
	maps.Copy(env, d.Variables)
	env["DAYFLY_DIR"] = filepath.Join(private, "data")
	env["DAYFLY_CLUSTER"], env["DAYFLY_INSTANCE"] = r.ClusterID, i.rec.ID
	delete(env, "PORT")
	if i.rec.Port != 0 {
		env["PORT"] = strconv.Itoa(i.rec.Port)
	}
	dir, err := inside(tree, d.Definition.Dir)
	if err != nil {
		return command{}, err
	}
	args := spec.Expand(d.Definition.Run, env)
	path, err := lookPath(args[0], dir, env["PATH"], user)
	if err != nil {
		return command{}, err
	}
	out, err := logfile.Open(r.path("logs", d.ID, "run.log"))
	if err != nil {
		return command{}, err
	}
	return command{path: path, args: args, env: list(env), dir: dir, out: out, user: user}, nil
}

// variables gives the environment of a running instance, for commands that check it.
func (i *instance) variables(d dayfly.Deployment) map[string]string {
	env := maps.Clone(d.Variables)
	env["PATH"] = os.Getenv("PATH")
	env["DAYFLY_DIR"] = i.k.r.path("private", d.ID, i.rec.ID, "data")
	env["HOME"] = i.k.r.path("private", d.ID, i.rec.ID, "home")
	if i.rec.Port != 0 {
		env["PORT"] = strconv.Itoa(i.rec.Port)
	}
	return env
}

// userName is what users of ours are called; they have no name of their own.
const userName = "dayfly"

// lookPath finds a program as a shell of a user started in dir with this PATH would; user 0 is
// the server's own.
func lookPath(name, dir, path string, user int) (string, error) {
	why := ""
	usable := func(file string) bool {
		info, err := os.Stat(file)
		if err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			return false
		}
		if user == 0 {
			return true
		}
		reason := reachable(file)
		if reason != "" && why == "" {
			why = fmt.Sprintf("; %s is there, but %s: services do not run as root (see --uids)", file, reason)
		}
		return reason == ""
	}
	if strings.Contains(name, "/") {
		file := name
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, name)
		}
		if !usable(file) {
			if why != "" {
				return "", fmt.Errorf("%s cannot be run%s", name, why)
			}
			return "", fmt.Errorf("there is no program %s in the tree: is it built?", name)
		}
		return file, nil
	}
	for _, d := range filepath.SplitList(path) {
		if file := filepath.Join(d, name); filepath.IsAbs(file) && usable(file) {
			return file, nil
		}
	}
	return "", fmt.Errorf("%w: %s (PATH is %s)%s", exec.ErrNotFound, name, path, why)
}

// list gives an environment as a sorted list.
func list(env map[string]string) []string {
	l := make([]string, 0, len(env))
	for name, value := range env {
		l = append(l, name+"="+value)
	}
	slices.Sort(l)
	return l
}

// copyTree copies a read-only tree as one that can be written to.
func copyTree(from, to string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	return filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Type()&os.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.Chmod(path, info.Mode().Perm()|0o200)
	})
}
