package source

import (
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/dayfly-dev/dayfly"
)

// Repo is a git repository, without credentials.
type Repo struct {
	URL   string
	Local string // its folder, where it lies on this host
	Host  string // scheme://host:port, "" for a local one
	// Hosted says that it is one of ours, which takes pushes: it is its own mirror.
	Hosted bool
	name   string // of a hosted one, for people
}

// String gives the URL, or what people call a hosted repository.
func (r Repo) String() string {
	if r.Hosted {
		return "/git/" + r.name + ".git"
	}
	return r.URL
}

// remote is what git is told.
func (r Repo) remote() string {
	if r.Hosted {
		return r.Local
	}
	return r.URL
}

// scp is the short form of ssh: user@host:path.
var scp = regexp.MustCompile(`^([A-Za-z0-9._-]+@)?([A-Za-z0-9.][A-Za-z0-9.-]*):([^:].*)$`)

// helper is how a URL begins for which git would start another program.
var helper = regexp.MustCompile(`^[A-Za-z0-9+.-]+::`)

// ParseRepo reads the URL of a repository: https, http, ssh, git, user@host:path, and
// where allowLocal is set paths and file://. Credentials in it are split off.
func ParseRepo(raw string, allowLocal bool) (Repo, dayfly.Secret, error) {
	none := dayfly.Secret{}
	refuse := func(why string) error {
		return dayfly.Invalid(dayfly.Problem{Field: "repo", Message: why})
	}
	if raw == "" {
		return Repo{}, none, refuse("is missing: give the URL of a git repository")
	}
	if strings.HasPrefix(raw, "-") || strings.ContainsFunc(raw, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return Repo{}, none, refuse("is no URL of a repository")
	}
	if m := helper.FindString(raw); m != "" {
		return Repo{}, none, refuse("remote helpers (" + m + ") are not allowed: use https, ssh or git")
	}
	local := func(path string) (Repo, dayfly.Secret, error) {
		if !allowLocal {
			return Repo{}, none, refuse("paths on the server are not allowed here (--allow-local-repos)")
		}
		if !filepath.IsAbs(path) {
			return Repo{}, none, refuse("a path has to be absolute")
		}
		path = filepath.Clean(path)
		return Repo{URL: path, Local: path}, none, nil
	}
	if !strings.Contains(raw, "://") {
		if m := scp.FindStringSubmatch(raw); m != nil && !strings.HasPrefix(raw, "/") && !strings.HasPrefix(raw, ".") {
			return Repo{URL: raw, Host: "ssh://" + m[2]}, none, nil
		}
		return local(raw)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return Repo{}, none, refuse("is no URL of a repository")
	}
	switch u.Scheme {
	case "file":
		return local(u.Path)
	case "https", "http", "ssh", "git":
	default:
		return Repo{}, none, refuse("the scheme " + u.Scheme + " is not allowed: use https, ssh or git")
	}
	if u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-") {
		return Repo{}, none, refuse("has no host")
	}
	token := none
	if u.User != nil && u.Scheme != "ssh" {
		if password, ok := u.User.Password(); ok {
			token = dayfly.NewSecret(u.User.Username() + ":" + password)
		} else {
			token = dayfly.NewSecret(u.User.Username())
		}
		u.User = nil
	}
	if u.User != nil {
		u.User = url.User(u.User.Username()) // ssh needs the name, and takes no password
	}
	u.Fragment, u.RawQuery = "", ""
	return Repo{URL: u.String(), Host: u.Scheme + "://" + u.Host}, token, nil
}
