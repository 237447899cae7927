package control

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// maxRouteHost leaves room in the table for what is put in front of the host of a route.
const maxRouteHost = 240

// checkRoute finds all that is wrong with a route and gives it as it is stored.
func checkRoute(r dayfly.Route) (dayfly.Route, error) {
	var problems []dayfly.Problem
	bad := func(field, message string) {
		problems = append(problems, dayfly.Problem{Field: field, Message: message})
	}
	if err := dayfly.ValidName(r.Name); err != nil {
		bad("name", err.Error())
	}
	r.Host = strings.ToLower(strings.TrimSuffix(r.Host, "."))
	switch {
	case r.Host == "":
		bad("host", "is missing")
	case len(r.Host) > maxRouteHost || !hostName.MatchString(r.Host):
		bad("host", strconv.Quote(r.Host)+" is no host name: write it without scheme and port")
	}
	if r.Path == "" {
		r.Path = "/"
	}
	if parsed, err := url.Parse(r.Path); err != nil || !strings.HasPrefix(r.Path, "/") || parsed.Path != r.Path || len(r.Path) > 1000 {
		bad("path", strconv.Quote(r.Path)+" is no path: it has to begin with / and have no query and nothing escaped")
	} else if r.Path != "/" {
		r.Path = strings.TrimRight(r.Path, "/")
	}
	if wrong := checkTarget(r.To); wrong != "" {
		bad("to", wrong)
	}
	if len(problems) > 0 {
		return r, dayfly.Invalid(problems...)
	}
	return r, nil
}

// checkTarget says what is wrong with the URL of something that is no service of ours.
func checkTarget(to string) string {
	u, err := url.Parse(to)
	switch {
	case to == "":
		return "is missing"
	case err != nil:
		return strconv.Quote(to) + " is no URL"
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
		return strconv.Quote(to) + " is no address to pass requests on to: write it as https://host or https://host/path"
	case u.User != nil:
		return "has a user or a password in it, which would be shown: leave them out"
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return strconv.Quote(to) + " has a query or a fragment: leave it out"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return strconv.Quote(port) + " is no port"
		}
	}
	return ""
}

// PutRoute makes a route, or changes the one of this name; created says which.
func (c *Control) PutRoute(ctx context.Context, r dayfly.Route) (made dayfly.Route, created bool, err error) {
	if r, err = checkRoute(r); err != nil {
		return dayfly.Route{}, false, err
	}
	r.Revision = 0
	var there registry.Record[dayfly.Route]
	var ok bool
	err = c.onRoutes(ctx, func() ([]registry.Op, error) {
		there, ok = registry.Lookup(c.cache, registry.Routes, r.Name)
		if r.CreatedAt = c.now().UTC().Truncate(time.Second); ok {
			r.CreatedAt = there.Value.CreatedAt
		}
		for other := range registry.RoutesAt(c.cache, r.Host) {
			if other.Key != r.Name && other.Value.Path == r.Path {
				return nil, dayfly.Errorf(dayfly.CodeConflict, "%s%s belongs to route %s: choose another host or path, or remove that one first", r.Host, strings.TrimSuffix(r.Path, "/"), other.Key)
			}
		}
		if ok && there.Value == r {
			return nil, nil
		}
		var ops []registry.Op
		if !ok || there.Value.Host != r.Host {
			claim, err := c.claimRoute(r.Host, +1)
			if err != nil {
				return nil, err
			}
			ops = append(ops, claim)
			if ok {
				back, err := c.claimRoute(there.Value.Host, -1)
				if err != nil {
					return nil, err
				}
				ops = append(ops, back)
			}
		} else {
			// Of two who want the same path of a host at once, one finds the claim changed.
			claim, _ := registry.Lookup(c.cache, registry.Hosts, r.Host)
			ops = append(ops, registry.Update(registry.Hosts, r.Host, claim.Value, claim.Revision))
		}
		return append(ops, registry.Update(registry.Routes, r.Name, r, there.Revision)), nil
	})
	if err != nil {
		return dayfly.Route{}, false, err
	}
	made, err = c.Route(ctx, r.Name)
	return made, !ok, err
}

// claimRoute makes the op by which one route more or less has a host.
func (c *Control) claimRoute(host string, change int) (registry.Op, error) {
	claim, ok := registry.Lookup(c.cache, registry.Hosts, host)
	claim.Value.Routes += change
	switch {
	case ok && claim.Value.Environment != "":
		return registry.Op{}, c.hostTaken(host)
	case !ok && registry.Holder(c.cache, host) != "":
		return registry.Op{}, c.hostTaken(host)
	case claim.Value.Routes <= 0:
		return registry.DeleteIf(registry.Hosts, host, claim.Revision), nil
	}
	return registry.Update(registry.Hosts, host, claim.Value, claim.Revision), nil
}

// onRoutes commits what plan says, and plans again where somebody else was quicker.
func (c *Control) onRoutes(ctx context.Context, plan func() ([]registry.Op, error)) error {
	for attempt := 0; ; attempt++ {
		ops, err := plan()
		if err != nil {
			return err
		}
		err = c.commit(ctx, ops...)
		var conflict *registry.Conflict
		if err == nil || !errors.As(err, &conflict) || attempt == 5 {
			if err == nil {
				c.routed(ctx)
			}
			return err
		}
		if err := c.catchUp(ctx); err != nil {
			return err
		}
	}
}

// catchUp waits until the cache has what others have written by now.
func (c *Control) catchUp(ctx context.Context) error {
	revision, err := registry.Commit(ctx, c.store) // changes nothing, and says where etcd is
	if err != nil {
		return err
	}
	return c.cache.Wait(ctx, revision)
}

// Routes lists all routes in the order of their names.
func (c *Control) Routes(context.Context) ([]dayfly.Route, error) {
	list := []dayfly.Route{}
	for r := range registry.All(c.cache, registry.Routes) {
		r.Value.Revision = r.Revision
		list = append(list, r.Value)
	}
	return list, nil
}

// Route gives a route.
func (c *Control) Route(_ context.Context, name string) (dayfly.Route, error) {
	r, ok := registry.Lookup(c.cache, registry.Routes, name)
	if !ok {
		return dayfly.Route{}, dayfly.Errorf(dayfly.CodeNotFound, "there is no route %q: `dayfly route list` shows those there are", name)
	}
	r.Value.Revision = r.Revision
	return r.Value, nil
}

// DeleteRoute removes a route. Requests under way go on.
func (c *Control) DeleteRoute(ctx context.Context, name string) error {
	return c.onRoutes(ctx, func() ([]registry.Op, error) {
		r, err := c.Route(ctx, name)
		if err != nil {
			return nil, err
		}
		back, err := c.claimRoute(r.Host, -1)
		if err != nil {
			return nil, err
		}
		return []registry.Op{back, registry.DeleteIf(registry.Routes, name, r.Revision)}, nil
	})
}
