package client_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api/apitest"
	"github.com/dayfly-dev/dayfly/internal/api/client"
)

func TestATokenThatAClientMakesLetsAnotherIn(t *testing.T) {
	control, admin := serve(t)
	made, secret, err := admin.CreateToken(t.Context(), "ci")
	if err != nil || made.Name != "ci" || made.ID == "" || made.CreatedAt.IsZero() || secret.Reveal() != "secret-of-ci" {
		t.Fatalf("made %+v, %v", made, err)
	}
	if text := fmt.Sprintf("%v %+v %#v", secret, secret, secret); strings.Contains(text, "secret-of") {
		t.Errorf("it shows itself: %s", text)
	}
	server := httptest.NewServer(apitest.Exposed(control))
	t.Cleanup(server.Close)
	other := client.New(server.URL, secret.Reveal())
	list, err := other.Tokens(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "ci" || list[0].ID != made.ID {
		t.Fatalf("listed %+v, %v", list, err)
	}
	if err := other.DeleteToken(t.Context(), "../projects/x"); dayfly.ErrorCode(err) != dayfly.CodeNotFound || !strings.Contains(err.Error(), "../projects/x") {
		t.Errorf("a name that is a path: %v", err)
	}
	if err := other.DeleteToken(t.Context(), "ci"); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"list": func() error { _, err := other.Tokens(t.Context()); return err }(),
		"make": func() error { _, _, err := other.CreateToken(t.Context(), "next"); return err }(),
		"follow": func() (err error) {
			for _, err = range other.Events(t.Context(), "a", dayfly.EventOptions{Follow: true}) {
				break
			}
			return err
		}(),
	} {
		if dayfly.ErrorCode(err) != dayfly.CodeUnauthorized || strings.Contains(err.Error(), "secret-of") {
			t.Errorf("%s with a revoked token: %v", name, err)
		}
	}
}
