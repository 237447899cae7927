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
}
