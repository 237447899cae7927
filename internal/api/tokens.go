package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-dev/dayfly"
)

type tokenBody struct {
	Name string `json:"name" minLength:"1" doc:"A DNS label."`
}

// madeToken is a token with its secret, which is shown in this one answer alone.
type madeToken struct {
	dayfly.Token
	Secret string `json:"token" doc:"What to send as Authorization: Bearer. It is not shown again."`
}

type madeTokenAnswer struct {
	CacheControl string `header:"Cache-Control"`
	Body         madeToken
}

type tokenPath struct {
	Token string `path:"token" doc:"Name or id."`
}

func (s *server) tokens() {
	tags := []string{"Tokens"}
	huma.Register(s.api, huma.Operation{OperationID: "create-token", Method: http.MethodPost, Path: "/v1/tokens", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Make a token", Description: "The answer is the only one that has it."},
		func(ctx context.Context, in *struct{ Body tokenBody }) (*madeTokenAnswer, error) {
			t, secret, err := s.Control.CreateToken(ctx, in.Body.Name)
			if err != nil {
				return nil, s.fail(err)
			}
			return &madeTokenAnswer{CacheControl: "no-store", Body: madeToken{Token: t, Secret: secret.Reveal()}}, nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "list-tokens", Method: http.MethodGet, Path: "/v1/tokens", Tags: tags, Summary: "List tokens"},
		func(ctx context.Context, _ *struct{}) (*list[dayfly.Token], error) {
			items, err := s.Control.Tokens(ctx)
			if err != nil {
				return nil, s.fail(err)
			}
			return listOf(items, ""), nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "delete-token", Method: http.MethodDelete, Path: "/v1/tokens/{token}", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Revoke a token", Description: "The next request with it is refused."},
		func(ctx context.Context, in *tokenPath) (*struct{}, error) {
			if err := s.Control.DeleteToken(ctx, in.Token); err != nil {
				return nil, s.fail(err)
			}
			return nil, nil
		})
}

var (
	errNoToken      = dayfly.Errorf(dayfly.CodeUnauthorized, "this server wants a token: give one with --token or DAYFLY_TOKEN (Authorization: Bearer)")
	errUnknownToken = dayfly.Errorf(dayfly.CodeUnauthorized, "this server does not know the token that was given, or not any more: give another one with --token or DAYFLY_TOKEN (Authorization: Bearer)")
)

// knownKey finds in a request's context what says whether its token is still known.
type knownKey struct{}

// allowed says whether whoever sent a request may go on listening: its token may have
// been revoked since.
func allowed(ctx context.Context) bool {
	known, ok := ctx.Value(knownKey{}).(func() bool)
	return !ok || known()
}

// authenticated refuses requests with a wrong token, and where one is needed those
// without. Whether the server lives and is ready everybody may ask.
func (s *server) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secret, given := bearer(r)
		var err *dayfly.Error
		switch {
		case r.URL.Path == "/healthz" || r.URL.Path == "/readyz":
		case strings.HasPrefix(r.URL.Path, "/v1/hooks/"): // signed with a secret of their own
		case given && !s.Control.KnowsToken(secret):
			err = errUnknownToken
		case !given && s.NeedToken:
			err = errNoToken
		}
		if err != nil && strings.HasPrefix(r.URL.Path, "/git/") {
			w.Header().Set("WWW-Authenticate", `Basic realm="dayfly: any name, and a token as password"`)
			http.Error(w, "this server wants a token: give it as the password, with any name", http.StatusUnauthorized)
			return
		}
		if err != nil {
			w.Header().Set("WWW-Authenticate", `Bearer realm="dayfly"`)
			writeProblem(w, problemOf(err))
			return
		}
		if given {
			known := func() bool { return s.Control.KnowsToken(secret) }
			r = r.WithContext(context.WithValue(r.Context(), knownKey{}, known))
		}
		next.ServeHTTP(w, r)
	})
}

// bearer gives the token of a request. Other kinds of authorization are for others, such
// as a login in front of the server.
func bearer(r *http.Request) (secret dayfly.Secret, given bool) {
	if _, password, ok := r.BasicAuth(); ok && strings.HasPrefix(r.URL.Path, "/git/") {
		return dayfly.NewSecret(password), true // git has no other kind
	}
	kind, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(kind, "Bearer") {
		return dayfly.Secret{}, false
	}
	return dayfly.NewSecret(strings.TrimSpace(value)), true
}
