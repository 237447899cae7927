package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

const (
	// tokenPrefix lets people and scanners of leaked secrets see what a token is of.
	tokenPrefix = "dayfly_"
	tokenBytes  = 32 // random ones of a token
)

// CreateToken makes a token for the API. Its secret is given here and never again: what
// is stored is its hash alone.
func (c *Control) CreateToken(ctx context.Context, name string) (dayfly.Token, dayfly.Secret, error) {
	if err := dayfly.ValidName(name); err != nil {
		return dayfly.Token{}, dayfly.Secret{}, dayfly.Invalid(dayfly.Problem{Field: "name", Message: err.Error()})
	}
	var random [tokenBytes]byte
	rand.Read(random[:]) // never fails, see crypto/rand
	secret := tokenPrefix + base64.RawURLEncoding.EncodeToString(random[:])
	hash := sha256.Sum256([]byte(secret))
	t := dayfly.Token{ID: dayfly.NewID(), Name: name, CreatedAt: c.now()}
	err := c.commit(ctx, registry.Create(registry.Tokens, name, registry.Token{Token: t, SHA256: hash[:]}))
	if dayfly.ErrorCode(err) == dayfly.CodeConflict {
		err = dayfly.Errorf(dayfly.CodeConflict, "token %s exists already: choose another name, or revoke it first (dayfly token revoke %s)", name, name)
	}
	if err != nil {
		return dayfly.Token{}, dayfly.Secret{}, err
	}
	return t, dayfly.NewSecret(secret), nil
}

// Tokens lists all tokens in the order of their names.
func (c *Control) Tokens(context.Context) ([]dayfly.Token, error) {
	list := []dayfly.Token{}
	for r := range registry.All(c.cache, registry.Tokens) {
		list = append(list, r.Value.Token)
	}
	return list, nil
}

// DeleteToken revokes the token with this name or id: nobody gets in with it any more.
func (c *Control) DeleteToken(ctx context.Context, name string) error {
	r, ok := registry.Lookup(c.cache, registry.Tokens, name)
	if !ok {
		for other := range registry.All(c.cache, registry.Tokens) {
			if other.Value.ID == name {
				r, ok = other, true
			}
		}
	}
	if !ok {
		return dayfly.Errorf(dayfly.CodeNotFound, "there is no token %q: `dayfly token list` shows those there are", name)
	}
	return c.commit(ctx, registry.DeleteIf(registry.Tokens, r.Key, r.Revision))
}

// KnowsToken says whether a secret is that of a token. How long that takes does not tell
// how much of a wrong one is right.
func (c *Control) KnowsToken(secret dayfly.Secret) bool {
	hash := sha256.Sum256([]byte(secret.Reveal()))
	known := 0
	for r := range registry.All(c.cache, registry.Tokens) {
		known |= subtle.ConstantTimeCompare(hash[:], r.Value.SHA256)
	}
	return known == 1
}
