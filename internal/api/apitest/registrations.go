package apitest

import (
	"context"
	"time"

	"github.com/dayfly-dev/dayfly"
)

// Register implements api.Control.
func (c *Control) Register(_ context.Context, r dayfly.RegistrationRequest) (i dayfly.InstanceInfo, created bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return i, false, c.fail
	}
	key := [2]string{r.Service, r.ID}
	_, there := c.registered[key]
	if c.registered == nil {
		c.registered = map[[2]string]dayfly.RegistrationRequest{}
	}
	c.registered[key] = r
	return instanceOf(r), !there, nil
}

func instanceOf(r dayfly.RegistrationRequest) dayfly.InstanceInfo {
	return dayfly.InstanceInfo{
		Instance: dayfly.Instance{ID: r.ID, Address: r.Address, Phase: dayfly.InstanceHealthy},
		Service:  r.Service, Version: r.Version, Environment: r.Environment, Project: r.Project, TTL: r.TTL,
	}
}

// Registered gives what was asked for a registration, and whether there is one.
func (c *Control) Registered(service, id string) (dayfly.RegistrationRequest, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.registered[[2]string{service, id}]
	return r, ok
}

// Instance implements api.Control.
func (c *Control) Instance(_ context.Context, service, id string) (dayfly.InstanceInfo, error) {
	if r, ok := c.Registered(service, id); ok {
		return instanceOf(r), nil
	}
	return dayfly.InstanceInfo{}, dayfly.Errorf(dayfly.CodeNotFound, "service %q has no instance %q", service, id)
}

// Deregister implements api.Control. Nobody is ever on an instance.
func (c *Control) Deregister(_ context.Context, service, id string, _ time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.registered[[2]string{service, id}]; !ok {
		return dayfly.Errorf(dayfly.CodeNotFound, "no instance %q of service %q is registered", id, service)
	}
	delete(c.registered, [2]string{service, id})
	return nil
}

// PutRoute implements api.Control.
func (c *Control) PutRoute(_ context.Context, r dayfly.Route) (made dayfly.Route, created bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return made, false, c.fail
	}
	for i := range c.routes {
		if c.routes[i].Name == r.Name {
			c.routes[i] = r
			return r, false, nil
		}
	}
	c.routes = append(c.routes, r)
	return r, true, nil
}

// Routes implements api.Control.
func (c *Control) Routes(context.Context) ([]dayfly.Route, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]dayfly.Route{}, c.routes...), c.fail
}

// Route implements api.Control.
func (c *Control) Route(_ context.Context, name string) (dayfly.Route, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.routes {
		if r.Name == name {
			return r, nil
		}
	}
	return dayfly.Route{}, dayfly.Errorf(dayfly.CodeNotFound, "there is no route %q", name)
}

// DeleteRoute implements api.Control.
func (c *Control) DeleteRoute(_ context.Context, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.routes {
		if c.routes[i].Name == name {
			c.routes = append(c.routes[:i], c.routes[i+1:]...)
			return nil
		}
	}
	return dayfly.Errorf(dayfly.CodeNotFound, "there is no route %q", name)
}
