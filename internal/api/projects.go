package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-dev/dayfly"
)

type projectBody struct {
	Name  string `json:"name,omitempty" doc:"A DNS label; the name in the project file by default."`
	Repo  string `json:"repo,omitempty" doc:"URL of the git repository; without it the project lives on this server alone, by pushes to its push_url."`
	Token string `json:"token,omitempty" doc:"For a private repository. It is stored sealed and never shown."`
}

type one[T any] struct {
	Status int
	ETag   string `header:"ETag"`
	Body   T
}

type list[T any] struct {
	Body struct {
		Items []T    `json:"items"`
		Next  string `json:"next" doc:"Give it as after to get the next page; empty on the last one."`
	}
}

// listOf makes a page; one without anything is an empty list, not null.
func listOf[T any](items []T, next string) *list[T] {
	out := &list[T]{}
	out.Body.Items, out.Body.Next = append([]T{}, items...), next
	return out
}

// ProjectPath names a project.
type ProjectPath struct {
	Project string `path:"project" doc:"Name or id."`
}

func (s *server) projects() {
	tags := []string{"Projects"}
	huma.Register(s.api, huma.Operation{OperationID: "create-project", Method: http.MethodPost, Path: "/v1/projects", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Add a project", Description: "Its repository is read first, where it has one. 201, or 200 where the same project is there already."},
		func(ctx context.Context, in *struct{ Body projectBody }) (*one[dayfly.Project], error) {
			if in.Body.Name == "" && in.Body.Repo == "" {
				return nil, s.fail(dayfly.Invalid(dayfly.Problem{Field: "repo", Message: "is missing: give one, or a name for a project that lives on this server alone"}))
			}
			p, created, err := s.Control.CreateProject(ctx, dayfly.ProjectRequest{Name: in.Body.Name, Repo: in.Body.Repo, Token: dayfly.NewSecret(in.Body.Token)})
			if err != nil {
				return nil, s.fail(err)
			}
			out := &one[dayfly.Project]{Status: http.StatusCreated, Body: p, ETag: etag(p.Revision)}
			if !created {
				out.Status = http.StatusOK
			}
			return out, nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "list-projects", Method: http.MethodGet, Path: "/v1/projects", Tags: tags, Summary: "List projects"},
		func(ctx context.Context, _ *struct{}) (*list[dayfly.Project], error) {
			items, err := s.Control.Projects(ctx)
			if err != nil {
				return nil, s.fail(err)
			}
			return listOf(items, ""), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "get-project", Method: http.MethodGet, Path: "/v1/projects/{project}", Tags: tags, Summary: "Show a project"},
		func(ctx context.Context, in *ProjectPath) (*one[dayfly.Project], error) {
			p, err := s.Control.Project(ctx, in.Project)
			if err != nil {
				return nil, s.fail(err)
			}
			return &one[dayfly.Project]{Status: http.StatusOK, Body: p, ETag: etag(p.Revision)}, nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "get-project-events", Method: http.MethodGet, Path: "/v1/projects/{project}/events", Tags: tags,
		Summary: "What happened to a project", Description: "Branches and files that became no environment, and why."},
		func(ctx context.Context, in *ProjectPath) (*list[dayfly.Event], error) {
			items, err := s.Control.ProjectEvents(ctx, in.Project)
			if err != nil {
				return nil, s.fail(err)
			}
			return listOf(items, ""), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "delete-project", Method: http.MethodDelete, Path: "/v1/projects/{project}", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Remove a project", Description: "A conflict while it has environments."},
		func(ctx context.Context, in *ProjectPath) (*struct{}, error) {
			if err := s.Control.DeleteProject(ctx, in.Project); err != nil {
				return nil, s.fail(err)
			}
			return nil, nil
		})
}
