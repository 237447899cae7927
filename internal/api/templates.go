package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-dev/dayfly"
)

// templateBody says what a template is made from, where that is no dump.
type templateBody struct {
	Name     string `json:"name,omitempty" doc:"A DNS label; may be given as a parameter, too."`
	FromDir  string `json:"from_dir,omitempty" doc:"A data folder on the server, of a database server that was shut down."`
	FromURL  string `json:"from_url,omitempty" doc:"Address of a running server. It is stored sealed and never shown."`
	Mask     string `json:"mask,omitempty" doc:"SQL that is run before the template is frozen; what it replaces is in no file afterwards."`
	Fixtures string `json:"fixtures,omitempty" doc:"SQL that is run before mask."`
}

// maxFields is the largest sum of what comes with a dump in a form, in bytes.
const maxFields = 4 * dayfly.MaxScript

// Upload is a body that is read while it comes: a dump, a form with one, or JSON.
type Upload struct {
	kind   string
	params map[string]string
	body   io.Reader
	size   int64
}

// Resolve implements huma.Resolver.
func (u *Upload) Resolve(ctx huma.Context) []error {
	kind, params, err := mime.ParseMediaType(ctx.Header("Content-Type"))
	if err != nil {
		kind = ""
	}
	u.kind, u.params, u.body = kind, params, ctx.BodyReader()
	if _, err := fmt.Sscan(ctx.Header("Content-Length"), &u.size); err != nil {
		u.size = 0
	}
	return nil
}

// read gives what was asked for, and the dump that comes with it; nil = none does.
func (u *Upload) read(name string, size int64) (req dayfly.TemplateRequest, dump io.Reader, err error) {
	req = dayfly.TemplateRequest{Name: name, Size: size}
	bad := func(field, message string) error {
		return dayfly.Invalid(dayfly.Problem{Field: field, Message: message})
	}
	switch u.kind {
	case "":
		return req, nil, nil
	case "application/json":
		var body templateBody
		decoder := json.NewDecoder(u.body)
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&body); err != nil && !errors.Is(err, io.EOF) {
			return req, nil, bad("body", err.Error())
		}
		if body.Name != "" && name != "" && body.Name != name {
			return req, nil, bad("name", fmt.Sprintf("is %q in the body and %q among the parameters", body.Name, name))
		}
		if body.Name != "" {
			req.Name = body.Name
		}
		req.Dir, req.URL = body.FromDir, dayfly.NewSecret(body.FromURL)
		req.Mask, req.Fixtures = []byte(body.Mask), []byte(body.Fixtures)
		return req, nil, nil
	case "multipart/form-data":
		form := multipart.NewReader(u.body, u.params["boundary"])
		for left := int64(maxFields); ; {
			part, err := form.NextPart()
			if errors.Is(err, io.EOF) {
				return req, nil, nil
			}
			if err != nil {
				return req, nil, bad("body", "is no form: "+err.Error())
			}
			if part.FormName() == "dump" {
				return req, part, nil
			}
			value, err := io.ReadAll(io.LimitReader(part, left+1))
			if err != nil {
				return req, nil, bad("body", "was cut off: "+err.Error())
			}
			if left -= int64(len(value)); left < 0 {
				return req, nil, bad(part.FormName(), fmt.Sprintf("is too large: all that is no dump may have %d bytes", maxFields))
			}
			switch part.FormName() {
			case "name":
				req.Name = string(value)
			case "mask":
				req.Mask = value
			case "fixtures":
				req.Fixtures = value
			case "from_dir":
				req.Dir = string(value)
			case "from_url":
				req.URL = dayfly.NewSecret(string(value))
			default:
				return req, nil, bad(part.FormName(), "is no known part: send name, mask, fixtures, from_dir, from_url, and dump as the last one")
			}
		}
	}
	if req.Size == 0 {
		req.Size = u.size
	}
	return req, u.body, nil
}

// dumpKind says whether a body of another kind than JSON may be a dump, or a form with one. What a page may
// send without being asked is none, but for a form, which has an Origin then.
func dumpKind(kind string) bool {
	switch kind {
	case "text/plain", "application/x-www-form-urlencoded":
		return false
	}
	return kind != ""
}

// takesDump says whether a request may have a dump as its body.
func takesDump(r *http.Request) bool {
	rest, ok := strings.CutPrefix(r.URL.Path, "/v1/templates")
	return ok && r.Method == http.MethodPost && (rest == "" || strings.HasSuffix(rest, "/refresh"))
}

// TemplatePath names a template.
type TemplatePath struct {
	Name string `path:"name" doc:"Name or id."`
}

func answerTemplate(status int, t dayfly.Template) *one[dayfly.Template] {
	return &one[dayfly.Template]{Status: status, Body: t, ETag: etag(t.Revision)}
}

func (s *server) waitTemplate(ctx context.Context, t dayfly.Template, in DatabaseWait) (dayfly.Template, error) {
	return held(ctx, in.Wait, t, func(ctx context.Context) (dayfly.Template, error) {
		return s.Control.WaitTemplate(ctx, t.ID, dayfly.Template.Settled)
	})
}

// uploaded describes the bodies that an upload may have.
func (s *server) uploaded() *huma.RequestBody {
	schema := s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[templateBody](), true, "TemplateBody")
	binary := &huma.Schema{Type: huma.TypeString, Format: "binary"}
	return &huma.RequestBody{
		Description: "JSON, where there is no dump; a dump by itself; or a form with the fields of the JSON and, as its last part, dump.",
		Content: map[string]*huma.MediaType{
			"application/json": {Schema: schema}, "application/octet-stream": {Schema: binary},
			"multipart/form-data": {Schema: &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{
				"name": {Type: huma.TypeString}, "mask": {Type: huma.TypeString}, "fixtures": {Type: huma.TypeString}, "dump": binary,
			}}},
		},
	}
}

func (s *server) templates() {
	tags := []string{"Templates"}
	huma.Register(s.api, huma.Operation{OperationID: "create-template", Method: http.MethodPost, Path: "/v1/templates", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary:     "Create a template",
		Description: "With a dump the answer is 201 when it is loaded; else 202 at once. One that could not be loaded may be created again."},
		func(ctx context.Context, in *struct {
			DatabaseWait
			Upload
			Name string `query:"name" doc:"A DNS label."`
			Size int64  `query:"size" minimum:"0" doc:"Bytes of the dump, for the progress."`
		}) (*one[dayfly.Template], error) {
			req, dump, err := in.read(in.Name, in.Size)
			if err == nil {
				_, err = WaitQuery{in.Wait}.limit()
			}
			var t dayfly.Template
			if err == nil {
				t, err = s.Control.CreateTemplate(ctx, req, dump)
			}
			if err == nil && dump == nil {
				t, err = s.waitTemplate(ctx, t, in.DatabaseWait)
			}
			if err != nil {
				return nil, s.fail(err)
			}
			if dump != nil {
				return answerTemplate(http.StatusCreated, t), nil
			}
			return answerTemplate(http.StatusAccepted, t), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "list-templates", Method: http.MethodGet, Path: "/v1/templates", Tags: tags, Summary: "List templates"},
		func(ctx context.Context, _ *struct{}) (*list[dayfly.Template], error) {
			items, err := s.Control.Templates(ctx)
			if err != nil {
				return nil, s.fail(err)
			}
			return listOf(items, ""), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "get-template", Method: http.MethodGet, Path: "/v1/templates/{name}", Tags: tags, Summary: "Show a template"},
		func(ctx context.Context, in *struct {
			TemplatePath
			DatabaseWait
		}) (*one[dayfly.Template], error) {
			t, err := s.Control.Template(ctx, in.Name)
			if err == nil {
				t, err = s.waitTemplate(ctx, t, in.DatabaseWait)
			}
			if err != nil {
				return nil, s.fail(err)
			}
			return answerTemplate(http.StatusOK, t), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "refresh-template", Method: http.MethodPost, Path: "/v1/templates/{name}/refresh", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary:     "Make the next version of a template",
		Description: "Databases that were made from others live on. A template made from a dump needs a new one; the answer is 200 when it is loaded, and else 202 at once."},
		func(ctx context.Context, in *struct {
			TemplatePath
			DatabaseWait
			Upload
			Size int64 `query:"size" minimum:"0" doc:"Bytes of the dump, for the progress."`
		}) (*one[dayfly.Template], error) {
			req, dump, err := in.read("", in.Size)
			if err == nil {
				_, err = WaitQuery{in.Wait}.limit()
			}
			if err == nil && (req.Name != "" || req.Dir != "" || !req.URL.IsZero() || len(req.Mask)+len(req.Fixtures) > 0) {
				err = dayfly.Invalid(dayfly.Problem{Field: "body", Message: "may have a dump alone: a refresh takes the source, the fixtures and the mask that the template has"})
			}
			var t dayfly.Template
			if err == nil {
				t, err = s.Control.RefreshTemplate(ctx, in.Name, dump, req.Size)
			}
			if err == nil && dump == nil {
				t, err = s.waitTemplate(ctx, t, in.DatabaseWait)
			}
			if err != nil {
				return nil, s.fail(err)
			}
			if dump != nil {
				return answerTemplate(http.StatusOK, t), nil
			}
			return answerTemplate(http.StatusAccepted, t), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "delete-template", Method: http.MethodDelete, Path: "/v1/templates/{name}", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Delete a template", Description: "One that databases were made from is a conflict that names them."},
		func(ctx context.Context, in *TemplatePath) (*struct{}, error) {
			if err := s.Control.DeleteTemplate(ctx, in.Name); err != nil {
				return nil, s.fail(err)
			}
			return nil, nil
		})
	// Told afterwards: what huma knows to have a body it reads to its end by itself.
	for _, path := range []string{"/v1/templates", "/v1/templates/{name}/refresh"} {
		s.api.OpenAPI().Paths[path].Post.RequestBody = s.uploaded()
	}
}
