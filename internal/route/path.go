package route

import (
	"cmp"
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
