package api

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-dev/dayfly"
)

type registrationBody struct {
	Version string `json:"version,omitempty" doc:"What is running there."`
	Address string `json:"address,omitempty" doc:"host:port; :port is the address that the request comes from."`
	Env     string `json:"env,omitempty" doc:"The environment that it is for, which need not be there. Without it, it is one of the project's instances of this version."`
	Project string `json:"project,omitempty" doc:"The environment's, or the only one, by default. It need not be there."`
	TTL     string `json:"ttl,omitempty" doc:"How long it lasts without being renewed, 1s to 1h; 10s by default."`
}

// InstancePath names an instance.
type InstancePath struct {
	Service string `path:"service"`
	ID      string `path:"id"`
}

// Sender is where a request comes from.
type Sender struct{ address string }

// Resolve implements huma.Resolver. What others say of who they are is not believed.
func (s *Sender) Resolve(ctx huma.Context) []error {
	s.address, _, _ = net.SplitHostPort(ctx.RemoteAddr())
	return nil
}

// duration reads a field; one that is left out is 0.
func duration(field, text string) (dayfly.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := dayfly.ParseDuration(text)
	switch {
	case err != nil:
		return 0, dayfly.Invalid(dayfly.Problem{Field: field, Message: err.Error()})
	case d == 0:
		return -1, nil // it was given
	}
	return d, nil
}

func (s *server) registrations() {
	tags := []string{"Services"}
	huma.Register(s.api, huma.Operation{OperationID: "get-instance", Method: http.MethodGet, Path: "/v1/services/{service}/instances/{id}", Tags: tags, Summary: "Show an instance"},
		func(ctx context.Context, in *InstancePath) (*one[dayfly.InstanceInfo], error) {
			i, err := s.Control.Instance(ctx, in.Service, in.ID)
			if err != nil {
				return nil, s.fail(err)
			}
			return &one[dayfly.InstanceInfo]{Status: http.StatusOK, Body: i}, nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "register-instance", Method: http.MethodPut, Path: "/v1/services/{service}/instances/{id}", Tags: tags,
		Summary:     "Register an instance, or renew it",
		Description: "It leaves when ttl has passed without another PUT. 201, or 200 where it is there already."},
		func(ctx context.Context, in *struct {
			InstancePath
			Sender
			Body registrationBody
		}) (*one[dayfly.InstanceInfo], error) {
			ttl, err := duration("ttl", in.Body.TTL)
			if err != nil {
				return nil, s.fail(err)
			}
			i, created, err := s.Control.Register(ctx, dayfly.RegistrationRequest{
				Service: in.Service, ID: in.ID, Version: in.Body.Version, Address: in.Body.Address, Sender: in.address,
				Environment: in.Body.Env, Project: in.Body.Project, TTL: ttl,
			})
			if err != nil {
				return nil, s.fail(err)
			}
			out := &one[dayfly.InstanceInfo]{Status: http.StatusOK, Body: i}
			if created {
				out.Status = http.StatusCreated
			}
			return out, nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "deregister-instance", Method: http.MethodDelete, Path: "/v1/services/{service}/instances/{id}", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary:     "End the registration of an instance",
		Description: "With the answer it gets no more requests from this server; with wait, those that it has have ended, too."},
		func(ctx context.Context, in *struct {
			InstancePath
			Wait string `query:"wait" doc:"Hold the answer until the requests under way have ended, at most so long, such as 10s."`
		}) (*struct{}, error) {
			wait, err := duration("wait", in.Wait)
			if err == nil {
				err = s.Control.Deregister(ctx, in.Service, in.ID, min(time.Duration(wait), time.Hour))
			}
			if err != nil {
				return nil, s.fail(err)
			}
			return nil, nil
		})
}

type routeBody struct {
	Host  string `json:"host,omitempty" doc:"A host name, without port."`
	Path  string `json:"path,omitempty" doc:"What the path of a request begins with; / by default."`
	To    string `json:"to,omitempty" doc:"http or https; a path in it is put in front of that of the request."`
	Strip bool   `json:"strip,omitempty" doc:"Remove path from that of the request."`
}

// RoutePath names a route.
type RoutePath struct {
	Name string `path:"name" doc:"A DNS label."`
}

func (s *server) routes() {
	tags := []string{"Routes"}
	huma.Register(s.api, huma.Operation{OperationID: "list-routes", Method: http.MethodGet, Path: "/v1/routes", Tags: tags, Summary: "List routes"},
		func(ctx context.Context, _ *struct{}) (*list[dayfly.Route], error) {
			items, err := s.Control.Routes(ctx)
			if err != nil {
				return nil, s.fail(err)
			}
			return listOf(items, ""), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "get-route", Method: http.MethodGet, Path: "/v1/routes/{name}", Tags: tags, Summary: "Show a route"},
		func(ctx context.Context, in *RoutePath) (*one[dayfly.Route], error) {
			r, err := s.Control.Route(ctx, in.Name)
			if err != nil {
				return nil, s.fail(err)
			}
			return &one[dayfly.Route]{Status: http.StatusOK, Body: r, ETag: etag(r.Revision)}, nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "put-route", Method: http.MethodPut, Path: "/v1/routes/{name}", Tags: tags,
		Summary:     "Make a route, or change it",
		Description: "Several routes may share a host with different paths. A host that an environment has is a conflict. 201, or 200 where there was one of this name."},
		func(ctx context.Context, in *struct {
			RoutePath
			Body routeBody
		}) (*one[dayfly.Route], error) {
			r, created, err := s.Control.PutRoute(ctx, dayfly.Route{Name: in.Name, Host: in.Body.Host, Path: in.Body.Path, To: in.Body.To, Strip: in.Body.Strip})
			if err != nil {
				return nil, s.fail(err)
			}
			out := &one[dayfly.Route]{Status: http.StatusOK, Body: r, ETag: etag(r.Revision)}
			if created {
				out.Status = http.StatusCreated
			}
			return out, nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "delete-route", Method: http.MethodDelete, Path: "/v1/routes/{name}", Tags: tags, DefaultStatus: http.StatusNoContent, Summary: "Remove a route"},
		func(ctx context.Context, in *RoutePath) (*struct{}, error) {
			if err := s.Control.DeleteRoute(ctx, in.Name); err != nil {
				return nil, s.fail(err)
			}
			return nil, nil
		})
}
