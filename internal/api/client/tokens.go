package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/dayfly-dev/dayfly"
)

// CreateToken makes a token; its secret cannot be asked for again.
func (c *Client) CreateToken(ctx context.Context, name string) (dayfly.Token, dayfly.Secret, error) {
	var made struct {
		dayfly.Token
		Secret string `json:"token"`
	}
	err := c.do(ctx, http.MethodPost, "/v1/tokens", nil, map[string]string{"name": name}, &made)
	return made.Token, dayfly.NewSecret(made.Secret), err
}

// Tokens lists tokens, without their secrets.
func (c *Client) Tokens(ctx context.Context) ([]dayfly.Token, error) {
	var l items[dayfly.Token]
	err := c.do(ctx, http.MethodGet, "/v1/tokens", nil, nil, &l)
	return l.Items, err
}

// DeleteToken revokes a token.
func (c *Client) DeleteToken(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, "/v1/tokens/"+url.PathEscape(name), nil, nil, nil)
}
