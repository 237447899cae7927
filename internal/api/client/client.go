// Package client speaks the HTTP API with the types of package dayfly. It knows
// nothing of the server's inside and runs wherever Go does.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
)

// reach is how long an unreachable server is tried before that is an error.
const reach = 5 * time.Second

// pause is the time between two tries.
const pause = 200 * time.Millisecond

// Client calls one server.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// New makes a client of the server at base, such as http://127.0.0.1:7070.
func New(base, token string) *Client {
	return &Client{base: strings.TrimRight(base, "/"), token: token, http: &http.Client{}}
}

// problem is the error that the API answers.
type problem struct {
	Title    string           `json:"title"`
	Detail   string           `json:"detail"`
	Code     dayfly.Code      `json:"code"`
	Problems []dayfly.Problem `json:"problems"`
}

// do calls the API and decodes the answer into out, which may be nil.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body, out any) error {
	resp, err := c.send(ctx, method, path, query, body, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil || resp.StatusCode == http.StatusNoContent {
		return nil
	}
	return c.read(resp, out)
}

// read decodes a good answer.
func (c *Client) read(resp *http.Response, out any) error {
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return dayfly.Errorf(dayfly.CodeInternal, "%s answered something else than JSON: is this a dayfly server?", c.base)
	}
	return nil
}

// send calls the API. A server that cannot be reached is tried for a while: it may be
// starting.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, body any, header http.Header) (*http.Response, error) {
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	if u, err := url.Parse(c.base); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, dayfly.Invalid(dayfly.Problem{Field: "--server", Message: fmt.Sprintf("%q is no address of a server: write it as http://127.0.0.1:7070", c.base)})
	}
	address := c.base + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	deadline := time.Now().Add(reach)
	for {
		req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(content))
		if err != nil {
			return nil, dayfly.Invalid(dayfly.Problem{Field: "--server", Message: err.Error()})
		}
		for name, values := range header {
			req.Header[name] = values
		}
		if body != nil {
			req.Header.Set("Content-Type", "application/json")
		}
		if c.token != "" {
			req.Header.Set("Authorization", "Bearer "+c.token)
		}
		resp, err := c.http.Do(req)
		if err == nil {
			if resp.StatusCode < 400 {
				return resp, nil
			}
			err := decode(resp)
			resp.Body.Close()
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		// Only what certainly was not done is done again.
		if !unsent(err) && method != http.MethodGet || time.Now().After(deadline) {
			return nil, &dayfly.Error{Code: dayfly.CodeUnavailable, Err: err,
				Message: fmt.Sprintf("the server at %s cannot be reached: start it with `dayfly server`, or name another one with --server (%v)", c.base, cause(err))}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// unsent says whether an error is from before anything was sent.
func unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// cause is the innermost error, without the URL that people gave themselves.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// decode reads the error that the API answered.
func decode(resp *http.Response) error {
	var p problem
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if json.Unmarshal(b, &p) != nil || p.Code == "" {
		p.Code, p.Detail = dayfly.CodeInternal, fmt.Sprintf("the server answered %s", resp.Status)
	}
	switch p.Code {
	case dayfly.CodeInvalid, dayfly.CodeUnauthorized, dayfly.CodeForbidden, dayfly.CodeNotFound, dayfly.CodeConflict, dayfly.CodeTimeout, dayfly.CodeUnavailable, dayfly.CodeFailed, dayfly.CodeInternal:
	default: // refused before anything was looked at
		p.Code = dayfly.CodeForbidden
	}
	e := &dayfly.Error{Code: p.Code, Message: p.Detail, Problems: p.Problems}
	if len(p.Problems) > 0 { // they say it themselves
		e.Message = ""
	}
	return e
}

type items[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next"`
}

func escape(name string) string { return url.PathEscape(name) }

func env(name string) string { return "/v1/environments/" + url.PathEscape(name) }

// CreateProject adds a project.
func (c *Client) CreateProject(ctx context.Context, r dayfly.ProjectRequest) (p dayfly.Project, created bool, err error) {
	body := map[string]string{"name": r.Name, "repo": r.Repo, "token": r.Token.Reveal()}
	for k, v := range body {
		if v == "" {
			delete(body, k)
		}
	}
	resp, err := c.send(ctx, http.MethodPost, "/v1/projects", nil, body, nil)
	if err != nil {
		return p, false, err
	}
	defer resp.Body.Close()
	err = c.read(resp, &p)
	return p, resp.StatusCode == http.StatusCreated, err
}

// Projects lists projects.
func (c *Client) Projects(ctx context.Context) ([]dayfly.Project, error) {
	var l items[dayfly.Project]
	err := c.do(ctx, http.MethodGet, "/v1/projects", nil, nil, &l)
	return l.Items, err
}

// Project gives a project.
func (c *Client) Project(ctx context.Context, name string) (p dayfly.Project, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/projects/"+url.PathEscape(name), nil, nil, &p)
	return p, err
}

// NewHookSecret makes the secret that hooks of a project are signed with.
func (c *Client) NewHookSecret(ctx context.Context, name string) (url, secret string, err error) {
	var out struct{ URL, Secret string }
	err = c.do(ctx, http.MethodPost, "/v1/projects/"+escape(name)+"/hook", nil, map[string]any{}, &out)
	return c.base + out.URL, out.Secret, err
}

// ProjectEvents gives what happened to a project.
func (c *Client) ProjectEvents(ctx context.Context, name string) ([]dayfly.Event, error) {
	var l items[dayfly.Event]
	err := c.do(ctx, http.MethodGet, "/v1/projects/"+url.PathEscape(name)+"/events", nil, nil, &l)
	return l.Items, err
}

// DeleteProject removes a project.
func (c *Client) DeleteProject(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, "/v1/projects/"+url.PathEscape(name), nil, nil, nil)
}

// environmentBody is the body of POST and PUT.
type environmentBody struct {
	dayfly.EnvironmentSpec
	Repo         string `json:"repo,omitempty"`
	Token        string `json:"token,omitempty"`
	WithFixtures bool   `json:"with_fixtures,omitempty"`
	Pin          bool   `json:"pin,omitempty"`
	Origin       string `json:"origin,omitempty"`
}

// CreateEnvironment creates an environment, and returns at once.
func (c *Client) CreateEnvironment(ctx context.Context, r dayfly.EnvironmentRequest) (e dayfly.Environment, created bool, err error) {
	query := url.Values{}
	if r.DryRun {
		query.Set("dry_run", "true")
	}
	resp, err := c.send(ctx, http.MethodPost, "/v1/environments", query,
		environmentBody{EnvironmentSpec: r.Spec, Repo: r.Repo, Token: r.Token.Reveal(), WithFixtures: r.WithFixtures, Pin: r.Pin}, nil)
	if err != nil {
		return e, false, err
	}
	defer resp.Body.Close()
	err = c.read(resp, &e)
	return e, resp.StatusCode == http.StatusAccepted, err
}

// PutEnvironment applies an environment file. revision is the one that the environment must
// have; 0 = any, or there is none.
func (c *Client) PutEnvironment(ctx context.Context, spec dayfly.EnvironmentSpec, revision int64) (e dayfly.Environment, err error) {
	header := http.Header{}
	if revision != 0 {
		header.Set("If-Match", `"`+strconv.FormatInt(revision, 10)+`"`)
	}
	resp, err := c.send(ctx, http.MethodPut, env(spec.Name), nil, environmentBody{EnvironmentSpec: spec}, header)
	if err != nil {
		return e, err
	}
	defer resp.Body.Close()
	err = c.read(resp, &e)
	return e, err
}

// ExtendEnvironment lets an environment live at least so long from now on.
func (c *Client) ExtendEnvironment(ctx context.Context, name string, d dayfly.Duration) (e dayfly.Environment, err error) {
	err = c.do(ctx, http.MethodPatch, env(name), nil, map[string]any{"extend": d}, &e)
	return e, err
}

// FreezeEnvironment lets an environment follow nothing, or follow again.
func (c *Client) FreezeEnvironment(ctx context.Context, name string, frozen bool) (e dayfly.Environment, err error) {
	err = c.do(ctx, http.MethodPatch, env(name), nil, map[string]any{"frozen": frozen}, &e)
	return e, err
}

// DeleteEnvironment begins to delete an environment.
func (c *Client) DeleteEnvironment(ctx context.Context, name string, force bool) (e dayfly.Environment, err error) {
	query := url.Values{}
	if force {
		query.Set("force", "true")
	}
	err = c.do(ctx, http.MethodDelete, env(name), query, nil, &e)
	return e, err
}

// Environments lists all environments of a project, or of all with "".
func (c *Client) Environments(ctx context.Context, project string) ([]dayfly.Environment, error) {
	all := []dayfly.Environment{}
	query := url.Values{}
	if project != "" {
		query.Set("project", project)
	}
	for {
		var l items[dayfly.Environment]
		if err := c.do(ctx, http.MethodGet, "/v1/environments", query, nil, &l); err != nil {
			return nil, err
		}
		all = append(all, l.Items...)
		if l.Next == "" {
			return all, nil
		}
		query.Set("after", l.Next)
	}
}

// Environment gives an environment.
func (c *Client) Environment(ctx context.Context, name string) (e dayfly.Environment, err error) {
	err = c.do(ctx, http.MethodGet, env(name), nil, nil, &e)
	return e, err
}

// Spec gives what was asked for an environment.
func (c *Client) Spec(ctx context.Context, name string) (s dayfly.EnvironmentSpec, err error) {
	err = c.do(ctx, http.MethodGet, env(name)+"/spec", nil, nil, &s)
	return s, err
}

// Test runs a test job to its end.
func (c *Client) Test(ctx context.Context, name, job string) (t dayfly.TestRun, err error) {
	body := map[string]string{}
	if job != "" {
		body["job"] = job
	}
	err = c.do(ctx, http.MethodPost, env(name)+"/tests", nil, body, &t)
	return t, err
}

func eventQuery(o dayfly.EventOptions) url.Values {
	q := url.Values{}
	if o.After > 0 {
		q.Set("after", strconv.FormatInt(o.After, 10))
	}
	if o.Follow {
		q.Set("follow", "true")
	}
	if o.Deleted {
		q.Set("deleted", "true")
	}
	return q
}

func logQuery(o dayfly.LogQuery) url.Values {
	q := url.Values{}
	if o.Service != "" {
		q.Set("service", o.Service)
	}
	if !o.Since.IsZero() {
		q.Set("since", o.Since.Format(time.RFC3339Nano))
	}
	if o.Tail > 0 {
		q.Set("tail", strconv.Itoa(o.Tail))
	}
	if o.Follow {
		q.Set("follow", "true")
	}
	if o.Deleted {
		q.Set("deleted", "true")
	}
	return q
}
