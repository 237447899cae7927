package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dayfly-dev/dayfly"
)

// transport answers in place of a server, so that time can be that of synctest.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// with makes a client whose calls are answered by f.
func with(f transport) *Client {
	c := New("http://127.0.0.1:7070", "")
	c.http.Transport = f
	return c
}

func response(r *http.Request, body string) *http.Response {
	return &http.Response{Status: "200 OK", StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}
}

var (
	errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	errReset   = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
)

func TestAnUnreachableServerIsTriedForFiveSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		c := with(func(*http.Request) (*http.Response, error) { tries++; return nil, errRefused })
		begun := time.Now()
		_, _, err := c.CreateEnvironment(t.Context(), dayfly.EnvironmentRequest{})
		took := time.Since(begun)
		if dayfly.ErrorCode(err) != dayfly.CodeUnavailable || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("it is %s: %v", dayfly.ErrorCode(err), err)
		}
		if took < reach || took > reach+2*pause || tries < 10 {
			t.Errorf("%d tries in %s", tries, took)
		}
		for _, text := range []string{"http://127.0.0.1:7070", "dayfly server", "--server", "connection refused"} {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%q does not say %q", err, text)
			}
		}
		if strings.Contains(err.Error(), "/v1/") {
			t.Errorf("%q talks of what people do not know", err)
		}
	})
}

func TestAServerThatComesUpMeanwhileIsReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := time.Now().Add(4 * time.Second)
		bodies := 0
		c := with(func(r *http.Request) (*http.Response, error) {
			if time.Now().Before(up) {
				return nil, errRefused
			}
			if b, err := io.ReadAll(r.Body); err == nil && strings.Contains(string(b), `"name":"n"`) {
				bodies++
			}
			return response(r, `{"name":"n"}`), nil
		})
		e, _, err := c.CreateEnvironment(t.Context(), dayfly.EnvironmentRequest{Spec: dayfly.EnvironmentSpec{Name: "n"}})
		if err != nil || e.Name != "n" || bodies != 1 {
			t.Errorf("%+v, %v, %d bodies", e, err, bodies)
		}
	})
}

func TestOnlyWhatCertainlyWasNotDoneIsDoneAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		call  func(context.Context, *Client) error
		again bool
	}{
		{"reading, connection broken", errReset, func(ctx context.Context, c *Client) error { _, err := c.Environment(ctx, "a"); return err }, true},
		{"reading, connection refused", errRefused, func(ctx context.Context, c *Client) error { _, err := c.Projects(ctx); return err }, true},
		{"creating, connection refused", errRefused, func(ctx context.Context, c *Client) error {
			_, _, err := c.CreateEnvironment(ctx, dayfly.EnvironmentRequest{})
			return err
		}, true},
		{"creating, connection broken", errReset, func(ctx context.Context, c *Client) error {
			_, _, err := c.CreateEnvironment(ctx, dayfly.EnvironmentRequest{})
			return err
		}, false},
		{"deleting, connection broken", errReset, func(ctx context.Context, c *Client) error { _, err := c.DeleteEnvironment(ctx, "a", false); return err }, false},
		{"testing, an error that talks of dialling", errors.New("the dial broke"), func(ctx context.Context, c *Client) error { _, err := c.Test(ctx, "a", ""); return err }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				err := c.call(t.Context(), with(func(*http.Request) (*http.Response, error) { tries++; return nil, c.err }))
				if dayfly.ErrorCode(err) != dayfly.CodeUnavailable {
					t.Errorf("it is %s: %v", dayfly.ErrorCode(err), err)
				}
				if (tries > 1) != c.again {
					t.Errorf("%d tries", tries)
				}
			})
		})
	}
}

func TestWhoGivesUpDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		_, err := with(func(*http.Request) (*http.Response, error) { return nil, errRefused }).Environment(ctx, "a")
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Second {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
	})
}

func TestAnErrorOfTheServerIsNotTriedAgain(t *testing.T) {
	tries := 0
	c := with(func(r *http.Request) (*http.Response, error) {
		tries++
		resp := response(r, `{"code":"unavailable","detail":"later"}`)
		resp.StatusCode = http.StatusServiceUnavailable
		return resp, nil
	})
	if _, err := c.Environment(t.Context(), "a"); dayfly.ErrorCode(err) != dayfly.CodeUnavailable || err.Error() != "later" || tries != 1 {
		t.Errorf("%v after %d tries", err, tries)
	}
}

func TestFollowingGivesUpWhenTheServerStaysAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		c := with(func(r *http.Request) (*http.Response, error) {
			if calls++; calls == 1 {
				return response(r, "id: 7\nevent: event\ndata: {\"id\":7}\n\nid: 8\nevent: event\nda"), nil
			}
			if id := r.Header.Get("Last-Event-ID"); id != "7" {
				t.Errorf("it goes on from %q, and what was cut off is lost", id)
			}
			return nil, errRefused
		})
		var got []dayfly.Event
		var last error
		for e, err := range c.Events(t.Context(), "a", dayfly.EventOptions{Follow: true}) {
			if last = err; err == nil {
				got = append(got, e)
			}
		}
		if len(got) != 1 || got[0].ID != 7 || dayfly.ErrorCode(last) != dayfly.CodeUnavailable {
			t.Errorf("got %v, then %v", got, last)
		}
	})
}

func TestAServerThatEndsEveryStreamIsNotAskedWithoutAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		calls := 0
		c := with(func(r *http.Request) (*http.Response, error) { calls++; return response(r, ": hello\n\n"), nil })
		for e, err := range c.Logs(ctx, "a", dayfly.LogQuery{Follow: true}) {
			t.Errorf("got %+v, %v", e, err)
		}
		if most := int(10 * time.Second / pause); calls < 2 || calls > most+1 {
			t.Errorf("asked %d times in 10 s", calls)
		}
	})
}
