package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"

	"github.com/dayfly-dev/dayfly"
)

func db(name string) string { return "/v1/databases/" + escape(name) }

func template(name string) string { return "/v1/templates/" + escape(name) }

// CreateDatabase creates a database, and returns at once; its address is final.
func (c *Client) CreateDatabase(ctx context.Context, r dayfly.DatabaseRequest) (d dayfly.Database, err error) {
	body := map[string]string{"name": r.Name, "template": r.Template, "from": r.From}
	if r.Keep != 0 {
		body["keep"] = r.Keep.String()
	}
	for k, v := range body {
		if v == "" {
			delete(body, k)
		}
	}
	err = c.do(ctx, http.MethodPost, "/v1/databases", nil, body, &d)
	return d, err
}

// Databases lists databases.
func (c *Client) Databases(ctx context.Context, f dayfly.DatabaseFilter) ([]dayfly.Database, error) {
	query := url.Values{}
	if f.Environment != "" {
		query.Set("env", f.Environment)
	}
	if f.Template != "" {
		query.Set("template", f.Template)
	}
	var l items[dayfly.Database]
	err := c.do(ctx, http.MethodGet, "/v1/databases", query, nil, &l)
	return l.Items, err
}

// Database gives a database.
func (c *Client) Database(ctx context.Context, name string) (d dayfly.Database, err error) {
	err = c.do(ctx, http.MethodGet, db(name), nil, nil, &d)
	return d, err
}

// WaitDatabase gives a database when it is ready or has failed, or after a while as it is then.
func (c *Client) WaitDatabase(ctx context.Context, name string) (d dayfly.Database, err error) {
	err = c.do(ctx, http.MethodGet, db(name), url.Values{"wait": {holdFor}}, nil, &d)
	return d, err
}

// holdFor is how long an answer is held at most.
const holdFor = "10s"

// ExtendDatabase lets a database live at least so long from now on.
func (c *Client) ExtendDatabase(ctx context.Context, name string, by dayfly.Duration) (d dayfly.Database, err error) {
	err = c.do(ctx, http.MethodPatch, db(name), nil, map[string]any{"extend": by}, &d)
	return d, err
}

// ResetDatabase begins to bring a database back to what it was made from.
func (c *Client) ResetDatabase(ctx context.Context, name string) (d dayfly.Database, err error) {
	err = c.do(ctx, http.MethodPost, db(name)+"/reset", nil, nil, &d)
	return d, err
}

// DeleteDatabase begins to delete a database. Force gives up one whose server is not there.
func (c *Client) DeleteDatabase(ctx context.Context, name string, force bool) (d dayfly.Database, err error) {
	query := url.Values{}
	if force {
		query.Set("force", "true")
	}
	err = c.do(ctx, http.MethodDelete, db(name), query, nil, &d)
	return d, err
}

// CreateTemplate creates a template. With a dump it returns when that is loaded, and else at once.
func (c *Client) CreateTemplate(ctx context.Context, r dayfly.TemplateRequest, dump io.Reader) (t dayfly.Template, err error) {
	if dump == nil {
		body := map[string]string{"name": r.Name, "from_dir": r.Dir, "from_url": r.URL.Reveal(), "mask": string(r.Mask), "fixtures": string(r.Fixtures)}
		for k, v := range body {
			if v == "" {
				delete(body, k)
			}
		}
		err = c.do(ctx, http.MethodPost, "/v1/templates", nil, body, &t)
		return t, err
	}
	query := url.Values{"name": {r.Name}}
	if r.Size > 0 {
		query.Set("size", strconv.FormatInt(r.Size, 10))
	}
	return c.upload(ctx, "/v1/templates", r.Name, query, map[string][]byte{"mask": r.Mask, "fixtures": r.Fixtures}, dump)
}

// RefreshTemplate makes the next version of a template. With a dump it returns when that is loaded, and else
// at once.
func (c *Client) RefreshTemplate(ctx context.Context, name string, dump io.Reader, size int64) (t dayfly.Template, err error) {
	if dump == nil {
		err = c.do(ctx, http.MethodPost, template(name)+"/refresh", nil, nil, &t)
		return t, err
	}
	query := url.Values{}
	if size > 0 {
		query.Set("size", strconv.FormatInt(size, 10))
	}
	return c.upload(ctx, template(name)+"/refresh", name, query, nil, dump)
}

// upload sends a dump while it is read. It cannot be sent twice, so first it is asked whether the server is there.
func (c *Client) upload(ctx context.Context, path, name string, query url.Values, fields map[string][]byte, dump io.Reader) (t dayfly.Template, err error) {
	if _, err := c.Templates(ctx); err != nil {
		return t, err
	}
	kind := "application/octet-stream"
	if len(fields["mask"])+len(fields["fixtures"]) > 0 {
		var head bytes.Buffer
		form := multipart.NewWriter(&head)
		for _, field := range []string{"mask", "fixtures"} {
			if len(fields[field]) > 0 {
				if err := form.WriteField(field, string(fields[field])); err != nil {
					return t, err
				}
			}
		}
		if _, err := form.CreateFormFile("dump", "dump"); err != nil {
			return t, err
		}
		end := "\r\n--" + form.Boundary() + "--\r\n"
		kind = form.FormDataContentType()
		dump = io.MultiReader(&head, dump, bytes.NewReader([]byte(end)))
	}
	source := &sending{Reader: dump}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path+"?"+query.Encode(), source)
	if err != nil {
		return t, err
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Expect", "100-continue") // what is refused is not sent
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return t, ctx.Err()
		}
		if source.err != nil && !errors.Is(source.err, io.EOF) {
			return t, dayfly.Errorf(dayfly.CodeFailed, "the dump cannot be read: %w", source.err)
		}
		// The server may have refused what came and not waited for the rest: then the template says why.
		if now, askErr := c.Template(ctx, name); askErr == nil && now.Message != "" && now.Settled() {
			return now, dayfly.Errorf(dayfly.CodeFailed, "%s", now.Message)
		}
		return t, &dayfly.Error{Code: dayfly.CodeUnavailable, Err: err, Message: "the dump could not be sent to " + c.base + ": " + cause(err).Error()}
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		return t, decode(resp)
	}
	err = c.read(resp, &t)
	return t, err
}

// sending remembers why its reader ended.
type sending struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (s *sending) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

// Templates lists templates.
func (c *Client) Templates(ctx context.Context) ([]dayfly.Template, error) {
	var l items[dayfly.Template]
	err := c.do(ctx, http.MethodGet, "/v1/templates", nil, nil, &l)
	return l.Items, err
}

// Template gives a template.
func (c *Client) Template(ctx context.Context, name string) (t dayfly.Template, err error) {
	err = c.do(ctx, http.MethodGet, template(name), nil, nil, &t)
	return t, err
}

// DeleteTemplate deletes a template.
func (c *Client) DeleteTemplate(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, template(name), nil, nil, nil)
}
