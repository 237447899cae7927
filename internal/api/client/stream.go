package client

import (
	"bufio"
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/dayfly-dev/dayfly"
)

// Events gives what happened to an environment. With Follow it goes on until ctx or the
// environment ends, also over a restart of the server.
func (c *Client) Events(ctx context.Context, name string, o dayfly.EventOptions) iter.Seq2[dayfly.Event, error] {
	return follow(ctx, c, env(name)+"/events", o.Follow, func(last time.Time, id string) (url.Values, http.Header) {
		h := http.Header{}
		if id != "" {
			h.Set("Last-Event-Id", id)
		}
		return eventQuery(o), h
	}, func(dayfly.Event) time.Time { return time.Time{} })
}

// Logs gives what an environment's services printed. With Follow it goes on until ctx or
// the environment ends, also over a restart of the server.
func (c *Client) Logs(ctx context.Context, name string, o dayfly.LogQuery) iter.Seq2[dayfly.LogLine, error] {
	return follow(ctx, c, env(name)+"/logs", o.Follow, func(last time.Time, id string) (url.Values, http.Header) {
		q, h := o, http.Header{}
		switch {
		case id != "":
			h.Set("Last-Event-Id", id)
		case !last.IsZero(): // of a server that cannot say where a line was: some may come again
			q.Since, q.Tail = last, 0
		}
		return logQuery(q), h
	}, func(l dayfly.LogLine) time.Time { return l.Time })
}

// follow reads a list, or a stream of server-sent events that is taken up again where it
// broke off.
func follow[T any](ctx context.Context, c *Client, path string, stream bool, ask func(last time.Time, id string) (url.Values, http.Header), at func(T) time.Time) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		if !stream {
			var l items[T]
			query, _ := ask(time.Time{}, "")
			if err := c.do(ctx, http.MethodGet, path, query, nil, &l); err != nil {
				yield(zero, err)
				return
			}
			for _, item := range l.Items {
				if !yield(item, nil) {
					return
				}
			}
			return
		}
		var last time.Time
		id := ""
		for ctx.Err() == nil {
			query, header := ask(last, id)
			resp, err := c.send(ctx, http.MethodGet, path, query, nil, header)
			if err != nil {
				if ctx.Err() == nil {
					yield(zero, err)
				}
				return
			}
			came := false
			ended := read(resp, func(name, eventID string, data []byte) bool {
				came = true
				if eventID != "" {
					id = eventID
				}
				switch name {
				case "end":
					return false
				case "error":
					var p problem
					_ = json.Unmarshal(data, &p) // an empty one says as much
					yield(zero, &dayfly.Error{Code: p.Code, Message: p.Detail})
					return false
				}
				var item T
				if err := json.Unmarshal(data, &item); err != nil {
					yield(zero, err)
					return false
				}
				if t := at(item); !t.IsZero() {
					last = t
				}
				return yield(item, nil)
			})
			if ended {
				return
			}
			if !came { // a server that ends streams at once is not asked without a pause
				select {
				case <-ctx.Done():
				case <-time.After(pause):
				}
			}
		}
	}
}

// read gives the events of a stream to take until that says no, which read then says, or
// the stream breaks off.
func read(resp *http.Response, take func(name, id string, data []byte) bool) (ended bool) {
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body) // a line is as long as what somebody printed
	name, id, data := "", "", ""
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return false // without what was cut off
		}
		if strings.HasPrefix(line, ":") {
			continue // a sign of life
		}
		key, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ": ")
		switch key {
		case "event":
			name = value
		case "id":
			id = value
		case "data":
			data = value
		case "":
			if data != "" && !take(name, id, []byte(data)) {
				return true
			}
			name, id, data = "", "", ""
		}
	}
}
