package api

import (
	"bytes"
	"cmp"
	_ "embed"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.html
var docsSource string

var docsPage = template.Must(template.New("docs").Parse(docsSource))

// operation is an endpoint as the page shows it.
type operation struct {
	Method, Path, Summary, Description, ID string
	Parameters                             []*huma.Param
	Body                                   []field
	Answer                                 string
}

type field struct{ Name, Type, Doc string }

// docs shows the OpenAPI document as a page that needs nothing from elsewhere.
func (s *server) docs(w http.ResponseWriter, _ *http.Request) {
	groups := map[string][]operation{}
	var order []string
	doc := s.api.OpenAPI()
	for path, item := range doc.Paths {
		for method, op := range map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "PUT": item.Put, "PATCH": item.Patch, "DELETE": item.Delete} {
			if op == nil {
				continue
			}
			o := operation{Method: method, Path: path, Summary: op.Summary, Description: op.Description, ID: op.OperationID, Parameters: op.Parameters}
			if op.RequestBody != nil {
				o.Body = fields(doc, op.RequestBody.Content["application/json"])
			}
			tag := op.Tags[0]
			if !slices.Contains(order, tag) {
				order = append(order, tag)
			}
			groups[tag] = append(groups[tag], o)
		}
	}
	slices.Sort(order)
	for _, ops := range groups {
		slices.SortFunc(ops, func(a, b operation) int {
			return cmp.Or(len(a.Path)-len(b.Path), strings.Compare(a.Path, b.Path), strings.Compare(b.Method, a.Method))
		})
	}
	var page bytes.Buffer
	if err := docsPage.Execute(&page, map[string]any{"Title": doc.Info.Title, "Version": doc.Info.Version, "Description": doc.Info.Description, "Order": order, "Groups": groups}); err != nil {
		s.Logger.Error("the documentation cannot be shown", "error", err)
		http.Error(w, "the documentation cannot be shown; see /openapi.json", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(page.Bytes()) // the client is gone otherwise
}

// fields lists what a body has.
func fields(doc *huma.OpenAPI, media *huma.MediaType) []field {
	if media == nil || media.Schema == nil {
		return nil
	}
	schema := media.Schema
	if schema.Ref != "" {
		schema = doc.Components.Schemas.SchemaFromRef(schema.Ref)
	}
	var list []field
	for name, p := range schema.Properties {
		f := field{Name: name, Type: p.Type, Doc: p.Description}
		if p.Type == "" || p.Type == huma.TypeArray {
			f.Type = "list"
		}
		if slices.Contains(schema.Required, name) {
			f.Type += ", required"
		}
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b field) int { return strings.Compare(a.Name, b.Name) })
	return list
}
