package api

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-dev/dayfly"
)

// Databases is what the API asks for about databases and templates; package control implements it.
type Databases interface {
	CreateDatabase(context.Context, dayfly.DatabaseRequest) (dayfly.Database, error)
	Databases(context.Context, dayfly.DatabaseFilter) ([]dayfly.Database, error)
	Database(ctx context.Context, name string) (dayfly.Database, error)
	WaitDatabase(ctx context.Context, name string, done func(dayfly.Database) bool) (dayfly.Database, error)
	PatchDatabase(ctx context.Context, name string, patch dayfly.DatabasePatch, ifMatch int64) (dayfly.Database, error)
	ResetDatabase(ctx context.Context, name string) (dayfly.Database, error)
	DeleteDatabase(ctx context.Context, name string, o dayfly.DeleteOptions) (dayfly.Database, error)

	// CreateTemplate and RefreshTemplate return when a dump is loaded, and at once without one.
	CreateTemplate(ctx context.Context, r dayfly.TemplateRequest, dump io.Reader) (dayfly.Template, error)
	RefreshTemplate(ctx context.Context, name string, dump io.Reader, size int64) (dayfly.Template, error)
	Templates(context.Context) ([]dayfly.Template, error)
	Template(ctx context.Context, name string) (dayfly.Template, error)
	WaitTemplate(ctx context.Context, name string, done func(dayfly.Template) bool) (dayfly.Template, error)
	DeleteTemplate(ctx context.Context, name string) error
}

type databaseBody struct {
	Name     string `json:"name,omitempty" doc:"A DNS label; made from the template by default."`
	Template string `json:"template,omitempty" doc:"Name or id; the only one there is by default."`
	From     string `json:"from,omitempty" doc:"Instead of template: name or id of a database to copy."`
	Keep     string `json:"keep,omitempty" doc:"How long it lives, such as 36h or 1d; as environments by default."`
}

// DatabasePath names a database.
type DatabasePath struct {
	ID string `path:"id" doc:"Name or id."`
}

// DatabaseWait says how long to hold an answer.
type DatabaseWait struct {
	Wait string `query:"wait" doc:"Hold the answer until it is ready or has failed, at most so long, such as 60s."`
}

// held waits as ?wait= asks for, and gives what is there when that has come or its time is over.
func held[T any](ctx context.Context, in string, now T, wait func(context.Context) (T, error)) (T, error) {
	limit, err := WaitQuery{in}.limit()
	if err != nil || limit < 0 {
		return now, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	then, err := wait(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return then, nil // as it is
	}
	return then, err
}

func (s *server) waitDatabase(ctx context.Context, d dayfly.Database, in DatabaseWait, done func(dayfly.Database) bool) (dayfly.Database, error) {
	return held(ctx, in.Wait, d, func(ctx context.Context) (dayfly.Database, error) { return s.Control.WaitDatabase(ctx, d.ID, done) })
}

func answerDatabase(status int, d dayfly.Database) *one[dayfly.Database] {
	return &one[dayfly.Database]{Status: status, Body: d, ETag: etag(d.Revision)}
}

func (s *server) databases() {
	tags := []string{"Databases"}
	huma.Register(s.api, huma.Operation{OperationID: "create-database", Method: http.MethodPost, Path: "/v1/databases", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary:     "Create a database",
		Description: "A copy of a template, or of another database, that takes no disk until it is written to. Its url is final; it takes connections when status is ready."},
		func(ctx context.Context, in *struct {
			DatabaseWait
			Body databaseBody
		}) (*one[dayfly.Database], error) {
			keep, err := duration("keep", in.Body.Keep)
			if err == nil {
				_, err = WaitQuery{in.Wait}.limit()
			}
			if err == nil && keep < 0 {
				err = dayfly.Invalid(dayfly.Problem{Field: "keep", Message: "has to be longer than nothing"})
			}
			var d dayfly.Database
			if err == nil {
				d, err = s.Control.CreateDatabase(ctx, dayfly.DatabaseRequest{Name: in.Body.Name, Template: in.Body.Template, From: in.Body.From, Keep: keep})
			}
			if err == nil {
				d, err = s.waitDatabase(ctx, d, in.DatabaseWait, dayfly.Database.Settled)
			}
			if err != nil {
				return nil, s.fail(err)
			}
			return answerDatabase(http.StatusAccepted, d), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "list-databases", Method: http.MethodGet, Path: "/v1/databases", Tags: tags, Summary: "List databases"},
		func(ctx context.Context, in *struct {
			Env      string `query:"env" doc:"Those of an environment: its name or id."`
			Template string `query:"template" doc:"Those made from a template: its name or id."`
		}) (*list[dayfly.Database], error) {
			items, err := s.Control.Databases(ctx, dayfly.DatabaseFilter{Environment: in.Env, Template: in.Template})
			if err != nil {
				return nil, s.fail(err)
			}
			return listOf(items, ""), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "get-database", Method: http.MethodGet, Path: "/v1/databases/{id}", Tags: tags, Summary: "Show a database"},
		func(ctx context.Context, in *struct {
			DatabasePath
			DatabaseWait
		}) (*one[dayfly.Database], error) {
			d, err := s.Control.Database(ctx, in.ID)
			if err == nil {
				d, err = s.waitDatabase(ctx, d, in.DatabaseWait, dayfly.Database.Settled)
			}
			if err != nil {
				return nil, s.fail(err)
			}
			return answerDatabase(http.StatusOK, d), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "patch-database", Method: http.MethodPatch, Path: "/v1/databases/{id}", Tags: tags, Summary: "Change how long a database lives"},
		func(ctx context.Context, in *struct {
			DatabasePath
			Precondition
			Body struct {
				Extend *dayfly.Duration `json:"extend,omitempty" doc:"At least so long from now, such as 2d."`
			}
		}) (*one[dayfly.Database], error) {
			revision, err := in.revision()
			var d dayfly.Database
			if err == nil {
				d, err = s.Control.PatchDatabase(ctx, in.ID, dayfly.DatabasePatch{ExtendBy: in.Body.Extend}, revision)
			}
			if err != nil {
				return nil, s.fail(err)
			}
			return answerDatabase(http.StatusOK, d), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "reset-database", Method: http.MethodPost, Path: "/v1/databases/{id}/reset", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary:     "Bring a database back to what it was made from",
		Description: "At the same address and with the same password. Connections to it are cut."},
		func(ctx context.Context, in *struct {
			DatabasePath
			DatabaseWait
		}) (*one[dayfly.Database], error) {
			_, err := WaitQuery{in.Wait}.limit()
			var d dayfly.Database
			if err == nil {
				d, err = s.Control.ResetDatabase(ctx, in.ID)
			}
			if err == nil {
				d, err = s.waitDatabase(ctx, d, in.DatabaseWait, dayfly.Database.Settled)
			}
			if err != nil {
				return nil, s.fail(err)
			}
			return answerDatabase(http.StatusAccepted, d), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "delete-database", Method: http.MethodDelete, Path: "/v1/databases/{id}", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "Delete a database", Description: "202 with the database as it goes; with wait, 204 when nothing of it is left."},
		func(ctx context.Context, in *struct {
			DatabasePath
			DatabaseWait
			Force bool `query:"force" doc:"Give up one whose server is not there."`
		}) (*one[*dayfly.Database], error) {
			_, err := WaitQuery{in.Wait}.limit()
			var d dayfly.Database
			if err == nil {
				d, err = s.Control.DeleteDatabase(ctx, in.ID, dayfly.DeleteOptions{Force: in.Force})
			}
			if err != nil {
				return nil, s.fail(err)
			}
			d, err = s.waitDatabase(ctx, d, in.DatabaseWait, func(dayfly.Database) bool { return false })
			switch {
			case in.Wait != "" && dayfly.ErrorCode(err) == dayfly.CodeNotFound:
				return &one[*dayfly.Database]{Status: http.StatusNoContent}, nil
			case err != nil:
				return nil, s.fail(err)
			}
			return &one[*dayfly.Database]{Status: http.StatusAccepted, Body: &d}, nil
		})
}
