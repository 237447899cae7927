// Package api is the HTTP API: JSON over HTTP, described by OpenAPI at /openapi.json
// and readable at /docs. It checks what comes in, asks Control, and says errors as
// problem+json.
package api

import (
	"context"
	"iter"
	"time"

	"github.com/dayfly-dev/dayfly"
)

// Control is what the API asks for; package control implements it.
type Control interface {
	Databases

	CreateProject(context.Context, dayfly.ProjectRequest) (p dayfly.Project, created bool, err error)
	Projects(context.Context) ([]dayfly.Project, error)
	Project(ctx context.Context, name string) (dayfly.Project, error)
	DeleteProject(ctx context.Context, name string) error
	NewHookSecret(ctx context.Context, project string) (dayfly.Secret, error)
	ReceiveHook(context.Context, dayfly.Hook) ([]dayfly.HookResult, error)
	ProjectEvents(ctx context.Context, name string) ([]dayfly.Event, error)

	CreateEnvironment(context.Context, dayfly.EnvironmentRequest) (e dayfly.Environment, created bool, err error)
	PutEnvironment(ctx context.Context, name string, spec dayfly.EnvironmentSpec, origin string, ifMatch int64) (e dayfly.Environment, created bool, err error)
	PatchEnvironment(ctx context.Context, name string, patch dayfly.EnvironmentPatch, ifMatch int64) (dayfly.Environment, error)
	DeleteEnvironment(ctx context.Context, name string, o dayfly.DeleteOptions) (dayfly.Environment, error)
	Environments(context.Context, dayfly.EnvironmentFilter) (list []dayfly.Environment, next string, err error)
	Environment(ctx context.Context, name string) (dayfly.Environment, error)
	WaitEnvironment(ctx context.Context, name string, done func(dayfly.Environment) bool) (dayfly.Environment, error)
	Spec(ctx context.Context, name string) (dayfly.EnvironmentSpec, error)
	// Propagation says which services hand on that a request is for an environment.
	Propagation(ctx context.Context, name string) (dayfly.Propagation, error)

	Events(ctx context.Context, name string, o dayfly.EventOptions) iter.Seq2[dayfly.Event, error]
	Logs(ctx context.Context, name string, q dayfly.LogQuery) iter.Seq2[dayfly.LogLine, error]
	Test(ctx context.Context, name, job string) (dayfly.TestRun, error)

	CreateToken(ctx context.Context, name string) (dayfly.Token, dayfly.Secret, error)
	Tokens(context.Context) ([]dayfly.Token, error)
	DeleteToken(ctx context.Context, name string) error
	// KnowsToken says whether a secret is that of a token.
	KnowsToken(secret dayfly.Secret) bool

	Services(context.Context) ([]dayfly.ServiceInfo, error)
	Instances(ctx context.Context, service string) ([]dayfly.InstanceInfo, error)
	Instance(ctx context.Context, service, id string) (dayfly.InstanceInfo, error)
	Register(context.Context, dayfly.RegistrationRequest) (i dayfly.InstanceInfo, created bool, err error)
	Deregister(ctx context.Context, service, id string, wait time.Duration) error

	PutRoute(context.Context, dayfly.Route) (r dayfly.Route, created bool, err error)
	Routes(context.Context) ([]dayfly.Route, error)
	Route(ctx context.Context, name string) (dayfly.Route, error)
	DeleteRoute(ctx context.Context, name string) error
	Ready(context.Context) error
}
