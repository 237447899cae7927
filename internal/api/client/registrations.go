package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/dayfly-dev/dayfly"
)

func instance(service, id string) string {
	return "/v1/services/" + escape(service) + "/instances/" + escape(id)
}

// Register registers an instance, or renews it. Sender is not sent: the server knows it.
func (c *Client) Register(ctx context.Context, r dayfly.RegistrationRequest) (i dayfly.InstanceInfo, err error) {
	body := map[string]string{"version": r.Version, "address": r.Address, "env": r.Environment, "project": r.Project}
	if r.TTL != 0 {
		body["ttl"] = r.TTL.String()
	}
	for k, v := range body {
		if v == "" {
			delete(body, k)
		}
	}
	err = c.do(ctx, http.MethodPut, instance(r.Service, r.ID), nil, body, &i)
	return i, err
}

// Deregister ends a registration and waits so long until nobody is on the instance.
func (c *Client) Deregister(ctx context.Context, service, id string, wait time.Duration) error {
	return c.do(ctx, http.MethodDelete, instance(service, id), url.Values{"wait": {dayfly.Duration(wait).String()}}, nil, nil)
}

// Instance gives an instance of a service.
func (c *Client) Instance(ctx context.Context, service, id string) (i dayfly.InstanceInfo, err error) {
	err = c.do(ctx, http.MethodGet, instance(service, id), nil, nil, &i)
	return i, err
}

// Instances lists the instances of a service.
func (c *Client) Instances(ctx context.Context, service string) ([]dayfly.InstanceInfo, error) {
	var l items[dayfly.InstanceInfo]
	err := c.do(ctx, http.MethodGet, "/v1/services/"+escape(service)+"/instances", nil, nil, &l)
	return l.Items, err
}

// PutRoute makes a route, or changes it.
func (c *Client) PutRoute(ctx context.Context, r dayfly.Route) (made dayfly.Route, err error) {
	body := map[string]any{"host": r.Host, "path": r.Path, "to": r.To, "strip": r.Strip}
	err = c.do(ctx, http.MethodPut, "/v1/routes/"+escape(r.Name), nil, body, &made)
	return made, err
}

// Routes lists routes.
func (c *Client) Routes(ctx context.Context) ([]dayfly.Route, error) {
	var l items[dayfly.Route]
	err := c.do(ctx, http.MethodGet, "/v1/routes", nil, nil, &l)
	return l.Items, err
}

// DeleteRoute removes a route.
func (c *Client) DeleteRoute(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, "/v1/routes/"+escape(name), nil, nil, nil)
}
