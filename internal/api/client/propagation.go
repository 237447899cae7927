package client

import (
	"context"
	"net/http"

	"github.com/dayfly-dev/dayfly"
)

// Propagation says which services hand on that a request is for an environment.
func (c *Client) Propagation(ctx context.Context, name string) (p dayfly.Propagation, err error) {
	err = c.do(ctx, http.MethodGet, "/v1/environments/"+escape(name)+"/propagation", nil, nil, &p)
	return p, err
}
