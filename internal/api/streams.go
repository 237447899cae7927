package api

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-dev/dayfly"
)

// heartbeat is how often a stream without news says that it lives.
const heartbeat = 15 * time.Second

func (s *server) streams() {
	tags := []string{"Environments"}
	huma.Register(s.api, huma.Operation{OperationID: "get-environment-events", Method: http.MethodGet, Path: "/v1/environments/{env}/events", Tags: tags,
		Summary:     "What happened to an environment",
		Description: "A list {items}; with follow=true server-sent events whose ids can be given as Last-Event-ID to go on from there."},
		func(ctx context.Context, in *struct {
			EnvironmentPath
			Follow      bool   `query:"follow"`
			After       int64  `query:"after" doc:"Id of the last event that is known."`
			Deleted     bool   `query:"deleted" doc:"Of an environment that is gone."`
			LastEventID string `header:"Last-Event-ID"`
		}) (*huma.StreamResponse, error) {
			after := in.After
			if id, err := strconv.ParseInt(in.LastEventID, 10, 64); err == nil {
				after = id
			}
			o := dayfly.EventOptions{After: after, Follow: in.Follow, Deleted: in.Deleted}
			return stream(s, in.Follow, "event", func(ctx context.Context) iter.Seq2[dayfly.Event, error] { return s.Control.Events(ctx, in.Env, o) },
				func(e dayfly.Event) string { return strconv.FormatInt(e.ID, 10) }), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "get-environment-logs", Method: http.MethodGet, Path: "/v1/environments/{env}/logs", Tags: tags,
		Summary: "What an environment's services printed", Description: "A list {items}; with follow=true server-sent events whose ids can be given as Last-Event-ID to go on from there."},
		func(ctx context.Context, in *struct {
			EnvironmentPath
			Service string `query:"service"`
			Follow  bool   `query:"follow"`
			Since   string `query:"since" doc:"A time, or a duration before now such as 1h."`
			Tail    int    `query:"tail" minimum:"0" doc:"At most so many old lines of each deployment."`
			Deleted bool   `query:"deleted" doc:"Of an environment that is gone."`

			LastEventID string `header:"Last-Event-ID"`
		}) (*huma.StreamResponse, error) {
			since, err := parseSince(in.Since)
			if err != nil {
				return nil, s.fail(err)
			}
			q := dayfly.LogQuery{Service: in.Service, Follow: in.Follow, Since: since, Tail: in.Tail, Deleted: in.Deleted, After: positionsOf(in.LastEventID)}
			passed := positionsOf(in.LastEventID)
			return stream(s, in.Follow, "line", func(ctx context.Context) iter.Seq2[dayfly.LogLine, error] { return s.Control.Logs(ctx, in.Env, q) },
				func(l dayfly.LogLine) string {
					passed.Pass(l.Next)
					return positionsID(passed)
				}), nil
		})
}

// positionsID writes places as the id of an event: DEPLOYMENT.SOURCE.OFFSET,...
func positionsID(p dayfly.LogPositions) string {
	var parts []string
	for deployment, sources := range p {
		for source, offset := range sources {
			parts = append(parts, deployment+"."+source+"."+strconv.FormatInt(offset, 36))
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// positionsOf reads what positionsID wrote. What is none says nothing.
func positionsOf(id string) dayfly.LogPositions {
	p := dayfly.LogPositions{}
	for part := range strings.SplitSeq(id, ",") {
		words := strings.Split(part, ".")
		if len(words) != 3 || words[0] == "" {
			continue
		}
		if offset, err := strconv.ParseInt(words[2], 36, 64); err == nil && offset > 0 {
			p.Pass(dayfly.LogPosition{Deployment: words[0], Source: words[1], Offset: offset})
		}
	}
	return p
}

func parseSince(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	d, err := dayfly.ParseDuration(s)
	if err != nil {
		return time.Time{}, dayfly.Invalid(dayfly.Problem{Field: "since", Message: "has to be a time such as 2026-01-31T12:00:00Z, or a duration such as 1h"})
	}
	return time.Now().Add(-time.Duration(d)), nil
}

// stream answers with all items as a list, or with each as a server-sent event.
func stream[T any](s *server, follow bool, name string, items func(context.Context) iter.Seq2[T, error], id func(T) string) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		if !follow {
			collected := []T{}
			for item, err := range items(hc.Context()) {
				if err != nil {
					s.streamFailed(hc, err)
					return
				}
				collected = append(collected, item)
			}
			hc.SetHeader("Content-Type", "application/json")
			_ = json.NewEncoder(hc.BodyWriter()).Encode(map[string]any{"items": collected, "next": ""}) // the client is gone otherwise
			return
		}
		follower := &sse{hc: hc}
		if hc.Method() == http.MethodHead { // there is nothing to wait for
			_ = follower.write("")
			return
		}
		ctx, cancel := context.WithCancel(hc.Context())
		var beat sync.WaitGroup
		defer beat.Wait()
		defer cancel()
		beat.Go(func() {
			defer cancel() // there is nobody to tell any more
			follower.beat(ctx)
		})
		for item, err := range items(ctx) {
			if !allowed(ctx) {
				break
			}
			if err == nil {
				err = follower.send(name, id(item), item)
				if err != nil {
					return // the client is gone
				}
				continue
			}
			if ctx.Err() == nil && !follower.refuse(func() { s.streamFailed(hc, err) }) {
				_ = follower.send("error", "", problemOf(err)) // the client is gone otherwise
			}
			return
		}
		switch {
		case hc.Context().Err() != nil:
		case !allowed(ctx):
			if !follower.refuse(func() { s.streamFailed(hc, errUnknownToken) }) {
				_ = follower.send("error", "", problemOf(errUnknownToken)) // the client is gone otherwise
			}
		default:
			// The end of what is followed is told, so that the client does not come back.
			_ = follower.send("end", "", struct{}{})
		}
	}}
}

func (s *server) streamFailed(hc huma.Context, err error) {
	p := problemOf(err)
	hc.SetHeader("Content-Type", p.ContentType(""))
	hc.SetStatus(p.Status)
	_ = json.NewEncoder(hc.BodyWriter()).Encode(p) // the client is gone otherwise
}

// sse writes server-sent events. The first thing that is written decides what kind of
// answer it is: what fails before has a status of its own.
type sse struct {
	hc    huma.Context
	mu    sync.Mutex
	begun bool
}

// refuse answers with an error, unless the stream has begun.
func (e *sse) refuse(answer func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.begun {
		return false
	}
	e.begun = true
	answer()
	return true
}

func (e *sse) send(name, id string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	head := "event: " + name + "\n"
	if id != "" {
		head += "id: " + id + "\n"
	}
	return e.write(fmt.Sprintf("%sdata: %s\n\n", head, data))
}

func (e *sse) write(text string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.begun {
		e.begun = true
		e.hc.SetHeader("Content-Type", "text/event-stream")
		e.hc.SetHeader("Cache-Control", "no-store")
		e.hc.SetStatus(http.StatusOK)
	}
	if _, err := e.hc.BodyWriter().Write([]byte(text)); err != nil {
		return err
	}
	if f, ok := e.hc.BodyWriter().(http.Flusher); ok {
		f.Flush()
	}
	return nil
}

// beat says that the stream lives, until ctx ends, or the client or its right to listen
// is gone.
func (e *sse) beat(ctx context.Context) {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if !allowed(ctx) || e.write(": still here\n\n") != nil {
				return
			}
		}
	}
}
