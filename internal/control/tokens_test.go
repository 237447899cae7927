package control_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// newToken makes a token.
func (w *world) newToken(name string) (dayfly.Token, string) {
	w.Helper()
	t, secret, err := w.CreateToken(w.Context(), name)
	if err != nil {
		w.Fatal(err)
	}
	return t, secret.Reveal()
}

// knows says whether a secret lets anybody in.
func (w *world) knows(secret string) bool { return w.KnowsToken(dayfly.NewSecret(secret)) }

func TestATokenLetsInUntilItIsRevoked(t *testing.T) {
	w := start(t)
	if w.knows("") {
		t.Error("nothing at all lets in where there are no tokens")
	}
	ci, secret := w.newToken("ci")
	_, other := w.newToken("other")
	if !w.knows(secret) || !w.knows(other) || secret == other {
		t.Error("new tokens do not let in")
	}
	if err := w.DeleteToken(t.Context(), "ci"); err != nil {
		t.Fatal(err)
	}
	if w.knows(secret) || !w.knows(other) {
		t.Error("not that token alone was revoked")
	}
	refused(t, w.DeleteToken(t.Context(), "ci"), dayfly.CodeNotFound, "ci", "dayfly token list")
	again, second := w.newToken("ci")
	if again.ID == ci.ID || second == secret || w.knows(secret) || !w.knows(second) {
		t.Error("a new token of the same name is the revoked one")
	}
	if err := w.DeleteToken(t.Context(), again.ID); err != nil || w.knows(second) {
		t.Errorf("revoking by id: %v", err)
	}
}

func TestWhatIsNotExactlyATokenDoesNotLetIn(t *testing.T) {
	w := start(t)
	_, secret := w.newToken("ci")
	r, _ := registry.Lookup(w.cache, registry.Tokens, "ci")
	for _, wrong := range []string{
		"", "ci", r.Value.ID, secret[1:], secret[:len(secret)-1], secret + "x", " " + secret, strings.ToUpper(secret),
		strings.TrimPrefix(secret, "dayfly_"), string(r.Value.SHA256), base64.StdEncoding.EncodeToString(r.Value.SHA256),
	} {
		if w.knows(wrong) {
			t.Errorf("%q lets in", wrong)
		}
	}
}

// A record without a hash, as no version writes it, is no way in.
func TestARecordWithoutAHashLetsNobodyIn(t *testing.T) {
	w := start(t)
	w.commit(registry.Create(registry.Tokens, "empty", registry.Token{Token: dayfly.Token{ID: "id", Name: "empty"}}))
	if w.knows("") || w.knows("empty") {
		t.Error("it lets in")
	}
}

func TestTheStateHasOnlyTheHashOfAToken(t *testing.T) {
	w := start(t)
	made, secret := w.newToken("ci")
	random, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(secret, "dayfly_"))
	if err != nil || len(random) != 32 {
		t.Errorf("it has %d random bytes, %v", len(random), err)
	}
	r, err := registry.Get(t.Context(), w.store, registry.Tokens, "ci")
	if err != nil {
		t.Fatal(err)
	}
	if want := sha256.Sum256([]byte(secret)); string(r.Value.SHA256) != string(want[:]) || r.Value.Token != made {
		t.Errorf("stored is %+v of %+v", r.Value, made)
	}
	stored, err := json.Marshal(r.Value)
	if err != nil || strings.Contains(string(stored), secret) {
		t.Errorf("stored is %s, %v", stored, err)
	}
	list, err := w.Tokens(t.Context())
	if err != nil || len(list) != 1 || list[0] != made || !made.CreatedAt.Equal(w.clock.Now()) {
		t.Errorf("listed %+v, %v", list, err)
	}
}

func TestTokensAreListedByName(t *testing.T) {
	w := start(t)
	if list, err := w.Tokens(t.Context()); err != nil || list == nil || len(list) != 0 {
		t.Errorf("at first there are %v, %v", list, err)
	}
	for _, name := range []string{"b", "c", "a"} {
		w.newToken(name)
	}
	list, err := w.Tokens(t.Context())
	if names := fmt.Sprint(list[0].Name, list[1].Name, list[2].Name); err != nil || names != "abc" {
		t.Errorf("listed %s, %v", names, err)
	}
}

func TestATokenNeedsANameOfItsOwn(t *testing.T) {
	w := start(t)
	_, secret := w.newToken("ci")
	for name, code := range map[string]dayfly.Code{
		"": dayfly.CodeInvalid, "Not a name": dayfly.CodeInvalid, "a/b": dayfly.CodeInvalid, strings.Repeat("a", 64): dayfly.CodeInvalid, "ci": dayfly.CodeConflict,
	} {
		made, other, err := w.CreateToken(t.Context(), name)
		refused(t, err, code)
		if !other.IsZero() || made != (dayfly.Token{}) {
			t.Errorf("%q: a token that was not made has a secret", name)
		}
	}
	if !w.knows(secret) {
		t.Error("the token that was there does not let in any more")
	}
}

func TestOfManyWhoWantOneNameOneGetsAToken(t *testing.T) {
	w := start(t)
	const many = 8
	secrets := make([]dayfly.Secret, many)
	errs := make([]error, many)
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() { _, secrets[i], errs[i] = w.CreateToken(context.Background(), "ci") })
	}
	all.Wait()
	got := 0
	for i, err := range errs {
		if err == nil {
			got++
			if !w.KnowsToken(secrets[i]) {
				t.Error("the token that was made does not let in")
			}
			continue
		}
		refused(t, err, dayfly.CodeConflict, "ci", "dayfly token revoke")
	}
	if got != 1 {
		t.Errorf("%d of them have one", got)
	}
}
