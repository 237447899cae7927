package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-dev/dayfly"
)

func (s *server) doctor() {
	huma.Register(s.api, huma.Operation{
		OperationID: "doctor", Method: http.MethodGet, Path: "/v1/doctor", Tags: []string{"Server"},
		Summary: "Examine the server's host", Description: "Looks for everything that keeps the server from working well, and says what to do about it. Changes nothing.",
	}, func(ctx context.Context, _ *struct{}) (*list[dayfly.Finding], error) {
		return listOf(s.Doctor(ctx), ""), nil
	})
	huma.Register(s.api, huma.Operation{
		OperationID: "list-departures", Method: http.MethodGet, Path: "/v1/doctor/retire", Tags: []string{"Server"},
		Summary: "What would go, and why", Description: "Lists what nobody needs now and what goes by itself: when, or what makes it go. What goes first comes first. Takes nothing away.",
	}, func(ctx context.Context, _ *struct{}) (*list[dayfly.Departure], error) {
		items, err := s.Retire(ctx)
		if err != nil {
			return nil, s.fail(err)
		}
		return listOf(items, ""), nil
	})
}
