package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-dev/dayfly"
)

// environmentBody is an environment file as JSON, and what only a command can say.
type environmentBody struct {
	Name         string        `json:"name,omitempty" doc:"A DNS label; made from project and branch by default."`
	Project      string        `json:"project,omitempty" doc:"May be left out where the server has one project."`
	Repo         string        `json:"repo,omitempty" doc:"Instead of project: the repository of one, made on the fly."`
	Branch       string        `json:"branch,omitempty" doc:"The branch to follow; the default branch by default."`
	Base         string        `json:"base,omitempty"`
	Prefix       string        `json:"prefix,omitempty" doc:"Stands for the name in public hosts."`
	Header       string        `json:"header,omitempty" doc:"The value by which a header names it; the name by default."`
	Keep         string        `json:"keep,omitempty" doc:"Life from the last change on, such as 36h, 5d or forever."`
	Data         string        `json:"data,omitempty" enum:"snapshot,fixtures,none"`
	PublicHeader bool          `json:"public_header,omitempty"`
	Only         []string      `json:"only,omitempty" doc:"The services to have; all by default."`
	Services     []serviceBody `json:"services,omitempty"`
	Token        string        `json:"token,omitempty" doc:"For private repositories, yours. It is stored sealed and never shown."`
	WithFixtures bool          `json:"with_fixtures,omitempty"`
	Pin          bool          `json:"pin,omitempty" doc:"Follow nothing: stay at the commits of now. See frozen of PATCH."`
	Origin       string        `json:"origin,omitempty" doc:"The file that the environment belongs to."`
}

type serviceBody struct {
	Name      string            `json:"name" minLength:"1"`
	Version   string            `json:"version,omitempty" doc:"Pinned: a tag, commit or branch."`
	Branch    string            `json:"branch,omitempty" doc:"Followed."`
	Repo      string            `json:"repo,omitempty"`
	URL       string            `json:"url,omitempty"`
	Route     string            `json:"route,omitempty"`
	Variables map[string]string `json:"variables,omitempty"`
}

// spec gives the asked state of a body.
func (b environmentBody) spec() (dayfly.EnvironmentSpec, error) {
	spec := dayfly.EnvironmentSpec{
		Name: b.Name, Project: b.Project, Branch: b.Branch, Base: b.Base, Prefix: b.Prefix, Header: b.Header, Data: b.Data,
		PublicHeader: b.PublicHeader, Only: b.Only,
	}
	for _, s := range b.Services {
		spec.Services = append(spec.Services, dayfly.ServiceSpec(s))
	}
	if b.Keep != "" {
		keep, err := dayfly.ParseDuration(b.Keep)
		if err != nil {
			return spec, dayfly.Invalid(dayfly.Problem{Field: "keep", Message: err.Error()})
		}
		spec.Keep = keep
	}
	return spec, nil
}

// applicable refuses what only the creation of an environment can say: it would be without
// effect on one that is there.
func (b environmentBody) applicable() error {
	var problems []dayfly.Problem
	check := func(given bool, field, instead string) {
		if given {
			problems = append(problems, dayfly.Problem{Field: field, Message: "cannot be given to PUT: " + instead})
		}
	}
	check(b.Repo != "", "repo", "name the project, which POST /v1/projects adds; for a single service there is services[].repo")
	check(b.Token != "", "token", "give it to POST /v1/projects for all environments of a project, or to POST /v1/environments for a new one")
	check(b.WithFixtures, "with_fixtures", `say "data": "fixtures"`)
	if len(problems) > 0 {
		return dayfly.Invalid(problems...)
	}
	return nil
}

// EnvironmentPath names an environment. It is exported, as the other parts of inputs
// are, because huma fills no others.
type EnvironmentPath struct {
	Env string `path:"env" doc:"Name or id."`
}

// WaitQuery says how long to hold an answer.
type WaitQuery struct {
	Wait string `query:"wait" doc:"Hold the answer until the environment is ready or has failed, at most so long, such as 60s."`
}

// limit is how long to wait at most; less than nothing is not at all. It is asked before
// anything is done, so that what is wrong leaves nothing behind.
func (w WaitQuery) limit() (time.Duration, error) {
	if w.Wait == "" {
		return -1, nil
	}
	limit, err := dayfly.ParseDuration(w.Wait)
	if err != nil {
		return 0, dayfly.Invalid(dayfly.Problem{Field: "wait", Message: err.Error()})
	}
	return min(time.Duration(limit), time.Hour), nil
}

// Precondition says what a change is based on.
type Precondition struct {
	IfMatch string `header:"If-Match" doc:"The revision that the environment must have."`
}

func (m Precondition) revision() (int64, error) {
	v := strings.Trim(strings.TrimPrefix(m.IfMatch, "W/"), `"`)
	if v == "" || v == "*" {
		return 0, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return 0, dayfly.Invalid(dayfly.Problem{Field: "If-Match", Message: "has to be a revision"})
	}
	return n, nil
}

func etag(revision int64) string { return `"` + strconv.FormatInt(revision, 10) + `"` }

func answer(status int, env dayfly.Environment) *one[dayfly.Environment] {
	return &one[dayfly.Environment]{Status: status, Body: env, ETag: etag(env.Revision)}
}

// wait holds an answer as ?wait= asks for.
func (s *server) wait(ctx context.Context, env dayfly.Environment, in WaitQuery, done func(dayfly.Environment) bool) (dayfly.Environment, error) {
	limit, err := in.limit()
	if err != nil || limit < 0 {
		return env, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	now, err := s.Control.WaitEnvironment(ctx, env.ID, done)
	if errors.Is(err, context.DeadlineExceeded) {
		return now, nil // as it is
	}
	return now, err
}

func (s *server) environments() {
	tags := []string{"Environments"}
	huma.Register(s.api, huma.Operation{OperationID: "create-environment", Method: http.MethodPost, Path: "/v1/environments", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary:     "Create an environment",
		Description: "Everything that can be wrong is found before anything is made. 202, or 200 where the same environment is there already; a name with another content is a conflict."},
		func(ctx context.Context, in *struct {
			WaitQuery
			DryRun bool `query:"dry_run" doc:"Say what would be, and make nothing."`
			Body   environmentBody
		}) (*one[dayfly.Environment], error) {
			spec, err := in.Body.spec()
			if err == nil {
				_, err = in.limit()
			}
			if err != nil {
				return nil, s.fail(err)
			}
			env, created, err := s.Control.CreateEnvironment(ctx, dayfly.EnvironmentRequest{
				Spec: spec, Repo: in.Body.Repo, Token: dayfly.NewSecret(in.Body.Token), WithFixtures: in.Body.WithFixtures, Pin: in.Body.Pin, DryRun: in.DryRun,
			})
			if err == nil && !in.DryRun {
				env, err = s.wait(ctx, env, in.WaitQuery, dayfly.Environment.Settled)
			}
			if err != nil {
				return nil, s.fail(err)
			}
			if !created || in.DryRun {
				return answer(http.StatusOK, env), nil
			}
			return answer(http.StatusAccepted, env), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "list-environments", Method: http.MethodGet, Path: "/v1/environments", Tags: tags, Summary: "List environments"},
		func(ctx context.Context, in *struct {
			Project string `query:"project"`
			Limit   int    `query:"limit" minimum:"1" maximum:"10000"`
			After   string `query:"after" doc:"What next said on the page before."`
		}) (*list[dayfly.Environment], error) {
			items, next, err := s.Control.Environments(ctx, dayfly.EnvironmentFilter{Project: in.Project, Limit: in.Limit, After: in.After})
			if err != nil {
				return nil, s.fail(err)
			}
			return listOf(items, next), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "get-environment", Method: http.MethodGet, Path: "/v1/environments/{env}", Tags: tags, Summary: "Show an environment"},
		func(ctx context.Context, in *struct {
			EnvironmentPath
			WaitQuery
		}) (*one[dayfly.Environment], error) {
			env, err := s.Control.Environment(ctx, in.Env)
			if err == nil {
				env, err = s.wait(ctx, env, in.WaitQuery, dayfly.Environment.Settled)
			}
			if err != nil {
				return nil, s.fail(err)
			}
			return answer(http.StatusOK, env), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "get-environment-spec", Method: http.MethodGet, Path: "/v1/environments/{env}/spec", Tags: tags, Summary: "Show what was asked for"},
		func(ctx context.Context, in *EnvironmentPath) (*one[dayfly.EnvironmentSpec], error) {
			spec, err := s.Control.Spec(ctx, in.Env)
			if err != nil {
				return nil, s.fail(err)
			}
			return &one[dayfly.EnvironmentSpec]{Status: http.StatusOK, Body: spec}, nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "put-environment", Method: http.MethodPut, Path: "/v1/environments/{env}", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "Apply an environment file", Description: "Makes the environment, or changes it to this content."},
		func(ctx context.Context, in *struct {
			EnvironmentPath
			WaitQuery
			Precondition
			Body environmentBody
		}) (*one[dayfly.Environment], error) {
			if err := in.Body.applicable(); err != nil {
				return nil, s.fail(err)
			}
			spec, err := in.Body.spec()
			if err == nil {
				_, err = in.limit()
			}
			if err != nil {
				return nil, s.fail(err)
			}
			revision, err := in.revision()
			if err != nil {
				return nil, s.fail(err)
			}
			env, _, err := s.Control.PutEnvironment(ctx, in.Env, spec, in.Body.Origin, revision)
			if err == nil {
				env, err = s.wait(ctx, env, in.WaitQuery, dayfly.Environment.Settled)
			}
			if err != nil {
				return nil, s.fail(err)
			}
			return answer(http.StatusAccepted, env), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "patch-environment", Method: http.MethodPatch, Path: "/v1/environments/{env}", Tags: tags, Summary: "Change how long an environment lives, and whether it follows its branches"},
		func(ctx context.Context, in *struct {
			EnvironmentPath
			Precondition
			Body struct {
				Extend *dayfly.Duration `json:"extend,omitempty" doc:"At least so long from now, such as 3d."`
				Keep   *dayfly.Duration `json:"keep,omitempty" doc:"Life from the last change on."`
				Frozen *bool            `json:"frozen,omitempty" doc:"Whether it follows nothing: it stays as it is until this is false again."`
			}
		}) (*one[dayfly.Environment], error) {
			revision, err := in.revision()
			if err != nil {
				return nil, s.fail(err)
			}
			env, err := s.Control.PatchEnvironment(ctx, in.Env, dayfly.EnvironmentPatch{ExtendBy: in.Body.Extend, Keep: in.Body.Keep, Frozen: in.Body.Frozen}, revision)
			if err != nil {
				return nil, s.fail(err)
			}
			return answer(http.StatusOK, env), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "delete-environment", Method: http.MethodDelete, Path: "/v1/environments/{env}", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "Delete an environment", Description: "202 with the environment as it goes; with wait, 204 when nothing of it is left."},
		func(ctx context.Context, in *struct {
			EnvironmentPath
			WaitQuery
			Force bool `query:"force" doc:"Also when others borrow from it, and without what a server that is not there has of it."`
		}) (*one[*dayfly.Environment], error) {
			if _, err := in.limit(); err != nil {
				return nil, s.fail(err)
			}
			env, err := s.Control.DeleteEnvironment(ctx, in.Env, dayfly.DeleteOptions{Force: in.Force})
			if err != nil {
				return nil, s.fail(err)
			}
			env, err = s.wait(ctx, env, in.WaitQuery, func(dayfly.Environment) bool { return false })
			switch {
			case in.Wait != "" && dayfly.ErrorCode(err) == dayfly.CodeNotFound:
				return &one[*dayfly.Environment]{Status: http.StatusNoContent}, nil
			case err != nil:
				return nil, s.fail(err)
			}
			return &one[*dayfly.Environment]{Status: http.StatusAccepted, Body: &env}, nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "test-environment", Method: http.MethodPost, Path: "/v1/environments/{env}/tests", Tags: tags,
		Summary: "Run a test job to its end", Description: "The answer comes when the job has ended; phase says how."},
		func(ctx context.Context, in *struct {
			EnvironmentPath
			Body struct {
				Job string `json:"job,omitempty" doc:"The only one by default."`
			}
		}) (*one[dayfly.TestRun], error) {
			run, err := s.Control.Test(ctx, in.Env, in.Body.Job)
			if err != nil {
				return nil, s.fail(err)
			}
			return &one[dayfly.TestRun]{Status: http.StatusOK, Body: run}, nil
		})
}

func (s *server) services() {
	tags := []string{"Services"}
	huma.Register(s.api, huma.Operation{OperationID: "list-services", Method: http.MethodGet, Path: "/v1/services", Tags: tags, Summary: "List the services of all environments"},
		func(ctx context.Context, _ *struct{}) (*list[dayfly.ServiceInfo], error) {
			items, err := s.Control.Services(ctx)
			if err != nil {
				return nil, s.fail(err)
			}
			return listOf(items, ""), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "list-instances", Method: http.MethodGet, Path: "/v1/services/{service}/instances", Tags: tags, Summary: "List the instances of a service"},
		func(ctx context.Context, in *struct {
			Service string `path:"service"`
		}) (*list[dayfly.InstanceInfo], error) {
			items, err := s.Control.Instances(ctx, in.Service)
			if err != nil {
				return nil, s.fail(err)
			}
			return listOf(items, ""), nil
		})
}
