package api_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api/apitest"
)

// taker is the control plane of templates: it tells what it was asked for as a template.
type taker struct{ apitest.DatabaseControl }

func (taker) CreateTemplate(_ context.Context, r dayfly.TemplateRequest, dump io.Reader) (dayfly.Template, error) {
	message := "no dump"
	if dump != nil {
		b, err := io.ReadAll(dump)
		if err != nil {
			return dayfly.Template{}, dayfly.Errorf(dayfly.CodeFailed, "the dump was cut off: %w", err)
		}
		message = string(b)
	}
	return dayfly.Template{Name: r.Name, Message: strings.Join([]string{message, r.Dir, r.URL.Reveal(), string(r.Mask), string(r.Fixtures)}, "|")}, nil
}

func (taker) RefreshTemplate(_ context.Context, name string, dump io.Reader, _ int64) (dayfly.Template, error) {
	t, err := taker{}.CreateTemplate(context.Background(), dayfly.TemplateRequest{Name: name}, dump)
	return t, err
}

func TestABodyOfATemplateIsADumpAFormOrJSON(t *testing.T) {
	r := newRig(t)
	r.control.DatabaseControl = taker{}
	const octets, form = "Content-Type: application/octet-stream", "Content-Type: multipart/form-data; boundary=x"
	part := func(name, value string) string {
		return "--x\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
	}
	for _, c := range []struct {
		name, path, body, kind string
		status                 int
		says                   string
	}{
		{"a dump", "/v1/templates?name=shop", "the dump", octets, http.StatusCreated, `"the dump||||"`},
		{"a dump of another kind", "/v1/templates?name=shop", "the dump", "Content-Type: application/gzip", http.StatusCreated, `"the dump||||"`},
		{"a form", "/v1/templates", part("name", "shop") + part("mask", "M") + part("fixtures", "F") + part("dump", "the dump") + "--x--\r\n", form, http.StatusCreated, `"the dump|||M|F"`},
		{"a form without a dump", "/v1/templates?name=shop", part("from_dir", "/d") + "--x--\r\n", form, http.StatusAccepted, `"no dump|/d|||"`},
		{"JSON", "/v1/templates", `{"name": "shop", "from_url": "postgres://h/d", "mask": "M"}`, "Content-Type: application/json", http.StatusAccepted, `"no dump||postgres://h/d|M|"`},
		{"nothing", "/v1/templates?name=shop", "", "X: y", http.StatusAccepted, `"no dump||||"`},
		{"a dump for a refresh", "/v1/templates/shop/refresh", "the dump", octets, http.StatusOK, `"the dump||||"`},
		{"a refresh without", "/v1/templates/shop/refresh", "", "X: y", http.StatusAccepted, `"no dump||||"`},

		{"a form with something else", "/v1/templates?name=shop", part("masc", "M") + "--x--\r\n", form, http.StatusUnprocessableEntity, "masc"},
		{"a form that was cut off", "/v1/templates?name=shop", part("mask", "M")[:20], form, http.StatusUnprocessableEntity, "form"},
		{"a dump in a form that was cut off", "/v1/templates?name=shop", part("dump", "the du"), form, http.StatusBadGateway, "cut off"},
		{"a mask beyond all bounds", "/v1/templates?name=shop", part("mask", strings.Repeat("x", 2<<20)) + "--x--\r\n", form, http.StatusUnprocessableEntity, "too large"},
		{"JSON with something else", "/v1/templates", `{"nane": "shop"}`, "Content-Type: application/json", http.StatusUnprocessableEntity, "nane"},
		{"two names", "/v1/templates?name=a", `{"name": "b"}`, "Content-Type: application/json", http.StatusUnprocessableEntity, "name"},
		{"a refresh with a mask", "/v1/templates/shop/refresh", `{"mask": "M"}`, "Content-Type: application/json", http.StatusUnprocessableEntity, "dump alone"},
		{"what a page may send by itself", "/v1/templates?name=shop", "x", "Content-Type: text/plain", http.StatusUnsupportedMediaType, "application/octet-stream"},
		{"a form of a page", "/v1/templates?name=shop", "a=b", "Content-Type: application/x-www-form-urlencoded", http.StatusUnsupportedMediaType, "content_type"},
		{"a dump for something else", "/v1/databases", "x", octets, http.StatusUnsupportedMediaType, "content_type"},
		{"a dump from a page of another origin", "/v1/templates?name=shop", "x", octets + "\nOrigin: http://evil.example", http.StatusForbidden, "foreign_origin"},
		{"a wait that is none", "/v1/templates?name=shop&wait=soon", "x", octets, http.StatusUnprocessableEntity, "wait"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := r.call("POST", c.path, c.body, strings.Split(c.kind, "\n")...)
			if got.status != c.status || !strings.Contains(got.body, c.says) {
				t.Errorf("%d %s, want %d and %s", got.status, got.body, c.status, c.says)
			}
		})
	}
	if got := r.call("POST", "/v1/templates?name=big", strings.Repeat("x", 3<<20), octets); got.status != http.StatusCreated {
		t.Errorf("a dump larger than other bodies: %d %.200s", got.status, got.body)
	}
	if got := r.call("POST", "/v1/templates", `{"mask": "`+strings.Repeat("x", 2<<20)+`"}`, "Content-Type: application/json"); got.status != http.StatusUnprocessableEntity {
		t.Errorf("JSON larger than other bodies: %d %.200s", got.status, got.body)
	}
}
