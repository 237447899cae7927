package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-dev/dayfly"
)

// hookSecret is what a hook needs; it is shown in this one answer alone.
type hookSecret struct {
	URL    string `json:"url" doc:"Where to send hooks, below this API's address."`
	Secret string `json:"secret" doc:"What to sign them with. It is not shown again."`
}

type hookSecretAnswer struct {
	CacheControl string `header:"Cache-Control"`
	Body         hookSecret
}

// pushed is the body of a hook, as most forges write it.
type pushed struct {
	Repository repositoryName `json:"repository"`
	Ref        string         `json:"ref"`
}

// repositoryName is a URL, or an object that has one.
type repositoryName string

// UnmarshalJSON reads both.
func (n *repositoryName) UnmarshalJSON(b []byte) error {
	var url string
	if err := json.Unmarshal(b, &url); err == nil {
		*n = repositoryName(url)
		return nil
	}
	var object struct {
		Clone string `json:"clone_url"`
		HTML  string `json:"html_url"`
		URL   string `json:"url"`
	}
	if err := json.Unmarshal(b, &object); err != nil {
		return err
	}
	for _, url := range []string{object.Clone, object.HTML, object.URL} {
		if url != "" && *n == "" {
			*n = repositoryName(url)
		}
	}
	return nil
}

func (s *server) hooks() {
	huma.Register(s.api, huma.Operation{OperationID: "create-hook-secret", Method: http.MethodPost, Path: "/v1/projects/{project}/hook", Tags: []string{"Projects"}, DefaultStatus: http.StatusCreated,
		Summary: "Make the secret that hooks of a project are signed with", Description: "The one before no longer counts."},
		func(ctx context.Context, in *struct {
			ProjectPath
			Body struct{}
		}) (*hookSecretAnswer, error) {
			secret, err := s.Control.NewHookSecret(ctx, in.Project)
			if err != nil {
				return nil, s.fail(err)
			}
			return &hookSecretAnswer{CacheControl: "no-store", Body: hookSecret{URL: "/v1/hooks/generic", Secret: secret.Reveal()}}, nil
		})
	huma.Register(s.api, huma.Operation{OperationID: "receive-hook", SkipValidateBody: true, Method: http.MethodPost, Path: "/v1/hooks/generic", Tags: []string{"Projects"}, DefaultStatus: http.StatusAccepted,
		Summary: "Say that a repository has news", Description: "Signed as the Standard Webhooks specification says, instead of with a token. Further keys of the body are not looked at."},
		func(ctx context.Context, in *struct {
			ID        string `header:"webhook-id"`
			Timestamp string `header:"webhook-timestamp" doc:"Seconds since 1970, at most 5 minutes off."`
			Signature string `header:"webhook-signature" doc:"v1,BASE64 of the HMAC-SHA256 of ID.TIMESTAMP.BODY."`
			RawBody   []byte `contentType:"application/json"`
		}) (*list[dayfly.HookResult], error) {
			var body pushed
			if err := json.Unmarshal(in.RawBody, &body); err != nil {
				return nil, s.fail(dayfly.Invalid(dayfly.Problem{Field: "body", Message: err.Error()}))
			}
			results, err := s.Control.ReceiveHook(ctx, dayfly.Hook{
				ID: in.ID, Timestamp: in.Timestamp, Signature: in.Signature, Body: in.RawBody, Repository: string(body.Repository), Ref: body.Ref,
			})
			if err != nil {
				return nil, s.fail(err)
			}
			return listOf(results, ""), nil
		})
}
