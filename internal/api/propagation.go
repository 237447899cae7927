package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-dev/dayfly"
)

func (s *server) propagation() {
	huma.Register(s.api, huma.Operation{
		OperationID: "get-propagation", Method: http.MethodGet, Path: "/v1/environments/{env}/propagation", Tags: []string{"Environments"},
		Summary:     "Show which services hand on for which environment a request is",
		Description: "Counters of this server, in its memory: who called whom for the environment, and what the calls carried. What they do not tell is in unseen.",
	}, func(ctx context.Context, in *EnvironmentPath) (*one[dayfly.Propagation], error) {
		p, err := s.Control.Propagation(ctx, in.Env)
		if err != nil {
			return nil, s.fail(err)
		}
		return &one[dayfly.Propagation]{Status: http.StatusOK, Body: p}, nil
	})
}
