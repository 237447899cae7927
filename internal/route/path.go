package route

import (
	"cmp"
	"net/url"
	"strings"
)

// pathRoute leads from a path and what is below it to a service.
type pathRoute struct {
	prefix  string // without trailing slash: "" stands for /
	service string // key
	strip   bool
}

func (r pathRoute) compare(other pathRoute) int {
	return cmp.Or(
		cmp.Compare(len(other.prefix), len(r.prefix)),
		cmp.Compare(r.prefix, other.prefix),
		cmp.Compare(r.service, other.service),
	)
}

// matches says whether path, which begins with a slash, is r's or below it.
func (r *pathRoute) matches(path string) bool {
	return strings.HasPrefix(path, r.prefix) && (len(path) == len(r.prefix) || path[len(r.prefix)] == '/')
}

// byPath gives the longest route for path among the services that env has and
// borrows, and who has it; nil when there is none.
func (s *state) byPath(env *environment, path string) (who *environment, route *pathRoute) {
	if !strings.HasPrefix(path, "/") { // "" and the * of OPTIONS
		path = "/"
	}
	longest := -1
	for c := s.chain(env); c.at != nil; c.next() {
		for i := range c.at.routes {
			r := &c.at.routes[i]
			if len(r.prefix) <= longest {
				break
			}
			if r.matches(path) && !s.overridden(env, c.at, r.service) {
				who, route, longest = c.at, r, len(r.prefix)
				break
			}
		}
	}
	return who, route
}

// overridden says whether somebody on the way from env to base has a service of
// his own under the same key.
func (s *state) overridden(env, base *environment, key string) bool {
	for c := s.chain(env); c.at != nil && c.at != base; c.next() {
		if c.at.find([]byte(key)) != nil {
			return true
		}
	}
	return false
}

// escapedSlash finds slashes that are not there to separate segments, and escapes them once more.
var escapedSlash = strings.NewReplacer("%2F", "%252F", "%2f", "%252F")

// PathOf gives the path by which a request is looked up: decoded, but for slashes that are escaped, for
// these are part of a segment and no boundary of a route.
func PathOf(u *url.URL) string {
	if u.RawPath == "" { // nothing unusual is escaped
		return u.Path
	}
	path, err := url.PathUnescape(escapedSlash.Replace(u.EscapedPath()))
	if err != nil {
		return u.Path
	}
	return path
}

// StripRaw takes as many segments off an escaped path as prefix has, which is a Match.Strip of it; what is
// left begins with a slash.
func StripRaw(path, prefix string) string {
	segments := strings.Count(prefix, "/")
	for i := range len(path) {
		if path[i] != '/' {
			continue
		}
		if segments == 0 {
			return path[i:]
		}
		segments--
	}
	return "/"
}
