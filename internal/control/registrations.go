package control

import (
	"context"
	"errors"
	"iter"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
	"github.com/dayfly-dev/dayfly/internal/status"
)

// The lives of registrations.
const (
	defaultTTL = dayfly.Duration(10 * time.Second)
	leastTTL   = dayfly.Duration(time.Second)
	mostTTL    = dayfly.Duration(time.Hour)
)

var (
	registrationID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`)
	// A version is shown in headers.
	registeredVersion = regexp.MustCompile(`^[[:graph:]]{1,200}$`)
	hostName          = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
)

// checkRegistration finds all that is wrong with a request and gives it with its defaults.
func checkRegistration(req dayfly.RegistrationRequest) (dayfly.RegistrationRequest, error) {
	var problems []dayfly.Problem
	bad := func(field, message string) {
		problems = append(problems, dayfly.Problem{Field: field, Message: message})
	}
	if err := dayfly.ValidName(req.Service); err != nil {
		bad("service", err.Error())
	}
	if !registrationID.MatchString(req.ID) {
		bad("id", strconv.Quote(req.ID)+" has to be 1 to 128 letters, digits, ., _, : and -")
	}
	switch {
	case req.Version == "":
		bad("version", "is missing")
	case !registeredVersion.MatchString(req.Version):
		bad("version", "has to be 1 to 200 visible ASCII characters without spaces")
	}
	for field, name := range map[string]string{"env": req.Environment, "project": req.Project} {
		if name == "" {
			continue
		}
		if err := dayfly.ValidName(name); err != nil {
			bad(field, err.Error())
		}
	}
	if req.TTL == 0 {
		req.TTL = defaultTTL
	}
	if req.TTL < leastTTL || req.TTL > mostTTL {
		bad("ttl", req.TTL.String()+" has to be 1s to 1h")
	}
	address, wrong := registeredAddress(req.Address, req.Sender)
	if wrong != "" {
		bad("address", wrong)
	}
	req.Address = address
	if len(problems) > 0 {
		slices.SortFunc(problems, func(a, b dayfly.Problem) int { return strings.Compare(a.Field, b.Field) })
		return req, dayfly.Invalid(problems...)
	}
	return req, nil
}

// registeredAddress gives the address that is meant, or what is wrong with it.
func registeredAddress(address, sender string) (full, wrong string) {
	if address == "" {
		return "", "is missing: write host:port, or :port for the address that the request comes from"
	}
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return "", strconv.Quote(address) + " is not written as host:port, nor as :port"
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return "", strconv.Quote(portText) + " is no port: it has to be 1 to 65535"
	}
	from, _ := netip.ParseAddr(sender)
	from = from.Unmap()
	if host == "" {
		if !from.IsValid() {
			return "", "the address that the request comes from is not known: write host:port"
		}
		host = from.String()
	}
	ip, err := netip.ParseAddr(host)
	ip = ip.Unmap()
	switch {
	case err != nil && (len(host) > 253 || !hostName.MatchString(strings.ToLower(strings.TrimSuffix(host, ".")))):
		return "", strconv.Quote(host) + " is neither an IP address nor a host name"
	case err != nil:
		ip = netip.Addr{}
	case ip.IsUnspecified() || ip.IsMulticast():
		return "", host + " is no address of one instance: write :" + portText + " for the address that the request comes from"
	}
	// What listens on this host's loopback is not for others to give away.
	if loopback := ip.IsLoopback() || err != nil && loopbackName(host); loopback && from.IsValid() && !from.IsLoopback() {
		return "", host + " is the server itself: write :" + portText + " for the address that the request comes from"
	}
	if ip.IsValid() {
		host = ip.String()
	}
	return net.JoinHostPort(host, strconv.FormatUint(port, 10)), ""
}

func loopbackName(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// Register leases a place for an instance, or renews it; created says which. Renewing writes nothing
// unless something has changed.
func (c *Control) Register(ctx context.Context, req dayfly.RegistrationRequest) (i dayfly.InstanceInfo, created bool, err error) {
	req, err = checkRegistration(req)
	if err != nil {
		return i, false, err
	}
	key := registry.RegistrationKey(req.Service, req.ID)
	there, ok := registry.Lookup(c.cache, registry.Registrations, key)
	for attempt := 0; ; attempt++ {
		if !ok {
			there = registry.Record[dayfly.Registration]{Key: key}
		}
		want, err := c.registration(req, there.Value)
		if err != nil {
			return i, false, err
		}
		if ok && want == there.Value {
			alive, err := c.store.Renew(ctx, want)
			if err != nil {
				return i, false, err
			}
			if alive {
				now := c.now()
				return c.registeredInstance(want, &now), false, nil
			}
		}
		made, err := c.store.Register(ctx, want, there.Revision)
		var conflict *registry.Conflict
		switch {
		case err == nil:
			if err := c.cache.Wait(ctx, made.Revision); err != nil {
				return i, false, err
			}
			c.routed(ctx)
			now := c.now()
			return c.registeredInstance(made.Value, &now), !ok, nil
		case !errors.As(err, &conflict) || attempt == 5:
			return i, false, err
		}
		// Its lease has run out, or it was changed at the same moment.
		there, err = registry.Get(ctx, c.store, registry.Registrations, key)
		if ok = err == nil; !ok && dayfly.ErrorCode(err) != dayfly.CodeNotFound {
			return i, false, err
		}
	}
}

// registration gives the record that a request asks for, where there is one already with what
// stays of that.
func (c *Control) registration(req dayfly.RegistrationRequest, there dayfly.Registration) (dayfly.Registration, error) {
	r := dayfly.Registration{
		Service: req.Service, ID: req.ID, Version: req.Version, Address: req.Address, Project: req.Project,
		Environment: req.Environment, TTL: req.TTL, CreatedAt: there.CreatedAt, Lease: there.Lease,
	}
	if r.CreatedAt.IsZero() {
		r.CreatedAt = c.now().UTC().Truncate(time.Second)
	}
	label, owner := r.Environment, "" // for hosts, and id of the environment
	if env, ok := registry.Lookup(c.cache, registry.Environments, r.Environment); ok {
		if r.Project == "" {
			r.Project = env.Value.Spec.Project
		}
		if r.Project != env.Value.Spec.Project {
			return r, dayfly.Errorf(dayfly.CodeConflict, "environment %s belongs to project %s, not to %s: choose another environment", r.Environment, env.Value.Spec.Project, r.Project)
		}
		owner = env.Value.ID
		if env.Value.Spec.Prefix != "" {
			label = env.Value.Spec.Prefix
		}
	} else if project, ok := registry.Unmanaged(c.cache, r.Environment); ok {
		if r.Project == "" {
			r.Project = project
		}
		if r.Project != project {
			return r, dayfly.Errorf(dayfly.CodeConflict, "environment %s is there by what is registered with it for project %s, not for %s: choose another environment", r.Environment, project, r.Project)
		}
	}
	if r.Project == "" {
		only, err := c.onlyProject()
		if err != nil {
			return r, err
		}
		r.Project = only
	}
	if there.Project != "" && there.Project != r.Project {
		return r, dayfly.Errorf(dayfly.CodeConflict, "instance %s of %s is registered for project %s: choose another id", r.ID, r.Service, there.Project)
	}
	if r.Environment == "" || c.config.Host == nil {
		return r, nil
	}
	if r.Host = c.config.Host(r.Service, label); r.Host == there.Host {
		return r, nil // who is there stays, whatever has become of the host
	}
	if claim, ok := registry.Lookup(c.cache, registry.Hosts, r.Host); ok && (owner == "" || claim.Value.Environment != owner) {
		return r, c.hostTaken(r.Host)
	}
	for other := range registry.RegistrationsAt(c.cache, r.Host) {
		if other.Value.Environment != r.Environment {
			return r, c.hostTaken(r.Host)
		}
	}
	return r, nil
}

// onlyProject is the project of what names none.
func (c *Control) onlyProject() (string, error) {
	var names []string
	for p := range registry.All(c.cache, registry.Projects) {
		names = append(names, p.Key)
	}
	switch len(names) {
	case 0:
		return "", dayfly.Invalid(dayfly.Problem{Field: "project", Message: "is missing, and there is no project yet: name one, which need not be there"})
	case 1:
		return names[0], nil
	}
	return "", dayfly.Invalid(dayfly.Problem{Field: "project", Message: "is missing, and there are several: name one of " + strings.Join(names, ", ")})
}

// Deregister ends a registration. Requests are sent elsewhere when it returns; with wait it also waits
// so long until those that this server has sent there have ended.
func (c *Control) Deregister(ctx context.Context, service, id string, wait time.Duration) error {
	key := registry.RegistrationKey(service, id)
	there, err := registry.Get(ctx, c.store, registry.Registrations, key)
	if dayfly.ErrorCode(err) == dayfly.CodeNotFound {
		return dayfly.Errorf(dayfly.CodeNotFound, "no instance %q of service %q is registered", id, service)
	}
	if err != nil {
		return err
	}
	revision, err := c.store.Deregister(ctx, there.Value)
	if err != nil {
		return err
	}
	if err := c.cache.Wait(ctx, revision); err != nil {
		return err
	}
	c.routed(ctx)
	if c.config.Left == nil || wait <= 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := c.config.Left(ctx, there.Value); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// Instance gives an instance of a service, registered or not.
func (c *Control) Instance(ctx context.Context, service, id string) (dayfly.InstanceInfo, error) {
	if r, ok := registry.Lookup(c.cache, registry.Registrations, registry.RegistrationKey(service, id)); ok {
		seen, _, err := c.store.LastSeen(ctx, r.Value, c.now())
		if err != nil {
			return dayfly.InstanceInfo{}, err
		}
		return c.registeredInstance(r.Value, &seen), nil
	}
	list, err := c.Instances(ctx, service)
	if err != nil {
		return dayfly.InstanceInfo{}, err
	}
	for _, i := range list {
		if i.ID == id {
			return i, nil
		}
	}
	return dayfly.InstanceInfo{}, dayfly.Errorf(dayfly.CodeNotFound, "service %q has no instance %q", service, id)
}

func (c *Control) registeredInstance(r dayfly.Registration, seen *time.Time) dayfly.InstanceInfo {
	if seen != nil {
		at := seen.UTC().Truncate(time.Second)
		seen = &at
	}
	return dayfly.InstanceInfo{
		Instance: dayfly.Instance{
			ID: r.ID, Deployment: registry.RegisteredID(r.Project, r.Environment, r.Service, r.Version), Address: r.Address,
			Phase: dayfly.InstanceHealthy, StartedAt: r.CreatedAt,
		},
		Service: r.Service, Version: r.Version, Environment: r.Environment, Project: r.Project, TTL: r.TTL, LastSeen: seen,
	}
}

// registeredInstances lists the registered instances of a service.
func (c *Control) registeredInstances(ctx context.Context, service string) (list []dayfly.InstanceInfo, err error) {
	prefix := registry.RegistrationKey(service, "")
	for r := range registry.After(c.cache, registry.Registrations, prefix) {
		if !strings.HasPrefix(r.Key, prefix) {
			break
		}
		seen, alive, err := c.store.LastSeen(ctx, r.Value, c.now())
		if err != nil {
			return nil, err
		}
		if alive {
			list = append(list, c.registeredInstance(r.Value, &seen))
		}
	}
	return list, nil
}

// unmanaged gives an environment that nobody created.
func (c *Control) unmanaged(ctx context.Context, name string) (dayfly.Environment, bool) {
	name = strings.TrimPrefix(name, "registered:") // its id
	project, ok := registry.Unmanaged(c.cache, name)
	if !ok {
		return dayfly.Environment{}, false
	}
	in := status.Input{URL: c.config.PublicURL}
	var last time.Time
	for r := range registry.RegistrationsOf(c.cache, project, name) {
		in.Registered = append(in.Registered, r.Value)
		seen, alive, err := c.store.LastSeen(ctx, r.Value, c.now())
		if err != nil || !alive {
			seen = r.Value.CreatedAt
		}
		if seen.After(last) {
			last = seen
		}
	}
	env := status.Unmanaged(name, project, in)
	last = last.UTC().Truncate(time.Second)
	env.LastSeen = &last
	return env, true
}

// unmanagedNames gives the environments that nobody created, from the first one on that comes after
// this one.
func (c *Control) unmanagedNames(after string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for name := range registry.RegisteredEnvironments(c.cache, after) {
			if _, ok := registry.Unmanaged(c.cache, name); ok && !yield(name) {
				return
			}
		}
	}
}
