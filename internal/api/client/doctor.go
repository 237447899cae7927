package client

import (
	"context"
	"net/http"

	"github.com/dayfly-dev/dayfly"
)

// Doctor has the server examine its host.
func (c *Client) Doctor(ctx context.Context) ([]dayfly.Finding, error) {
	var l struct {
		Items []dayfly.Finding `json:"items"`
	}
	err := c.do(ctx, http.MethodGet, "/v1/doctor", nil, nil, &l)
	return l.Items, err
}

// Departures lists what goes by itself on the server, what goes first first.
func (c *Client) Departures(ctx context.Context) ([]dayfly.Departure, error) {
	var l struct {
		Items []dayfly.Departure `json:"items"`
	}
	err := c.do(ctx, http.MethodGet, "/v1/doctor/retire", nil, nil, &l)
	return l.Items, err
}
