package apitest

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api"
)

// secretOf is the secret of the token with this name.
func secretOf(name string) string { return "secret-of-" + name }

// Exposed makes the API of a control plane as others than the host's users reach it.
func Exposed(c *Control) http.Handler {
	return api.New(api.Config{Control: c, Version: "v1.2.3", Hosts: []string{"dayfly.example.org"}, NeedToken: true, Doctor: c.doctor, Retire: c.retire, Logger: slog.New(slog.DiscardHandler)})
}

// CreateToken implements api.Control; the secret is "secret-of-NAME".
func (c *Control) CreateToken(_ context.Context, name string) (dayfly.Token, dayfly.Secret, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return dayfly.Token{}, dayfly.Secret{}, c.fail
	}
	for _, t := range c.tokens {
		if t.Name == name {
			return dayfly.Token{}, dayfly.Secret{}, dayfly.Errorf(dayfly.CodeConflict, "token %s exists already", name)
		}
	}
	t := dayfly.Token{ID: "id-" + name, Name: name, CreatedAt: time.Now()}
	c.tokens = append(c.tokens, t)
	return t, dayfly.NewSecret(secretOf(name)), nil
}

// Tokens implements api.Control.
func (c *Control) Tokens(context.Context) ([]dayfly.Token, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.tokens), c.fail
}

// DeleteToken implements api.Control.
func (c *Control) DeleteToken(_ context.Context, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return c.fail
	}
	before := len(c.tokens)
	c.tokens = slices.DeleteFunc(c.tokens, func(t dayfly.Token) bool { return t.Name == name || t.ID == name })
	if len(c.tokens) == before {
		return dayfly.Errorf(dayfly.CodeNotFound, "there is no token %q", name)
	}
	return nil
}

// KnowsToken implements api.Control.
func (c *Control) KnowsToken(secret dayfly.Secret) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.tokens, func(t dayfly.Token) bool { return secretOf(t.Name) == secret.Reveal() })
}
