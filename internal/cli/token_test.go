package cli_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/api/apitest"
)

func TestATokenIsPrintedAloneWhenItIsMade(t *testing.T) {
	s := newShell(t)
	r := s.run("token", "create", "ci")
	if r.code != 0 || r.out != "secret-of-ci\n" || !strings.Contains(r.err, "not shown again") || strings.Contains(r.err, "secret-of") {
		t.Errorf("got %+v", r)
	}
	made := onlyJSON[map[string]any](t, s.ok("-o", "json", "token", "create", "other"))
	if made["token"] != "secret-of-other" || made["name"] != "other" || made["id"] != "id-other" || made["created_at"] == "" {
		t.Errorf("made %v", made)
	}
	if out := s.ok("-o", "yaml", "token", "create", "third"); !strings.Contains(out, "token: secret-of-third\n") || !strings.Contains(out, "name: third\n") {
		t.Errorf("made %s", out)
	}
}

func TestTokensAreListedAndRevoked(t *testing.T) {
	s := newShell(t)
	s.ok("token", "create", "ci")
	s.ok("token", "create", "other")
	out := s.ok("token", "list")
	if !strings.HasPrefix(out, "NAME") || !strings.Contains(out, "\nci ") || !strings.Contains(out, "\nother ") || strings.Contains(out, "secret") {
		t.Errorf("listed %s", out)
	}
	if out := s.ok("token", "revoke", "ci"); out != "" {
		t.Errorf("revoking prints %q", out)
	}
	out = s.ok("token", "ls", "-o", "json")
	list := onlyJSON[struct{ Items []dayfly.Token }](t, out)
	if len(list.Items) != 1 || list.Items[0].Name != "other" || strings.Contains(out, "secret") {
		t.Errorf("listed %s", out)
	}
	for _, c := range []struct {
		args []string
		code int
	}{
		{[]string{"revoke", "ci"}, 3}, {[]string{"create", "other"}, 7},
		{nil, 2}, {[]string{"create"}, 2}, {[]string{"create", "a", "b"}, 2}, {[]string{"revoke"}, 2}, {[]string{"list", "a"}, 2}, {[]string{"nonsense"}, 2},
	} {
		if r := s.run(append([]string{"token"}, c.args...)...); r.code != c.code || r.out != "" || r.err == "" {
			t.Errorf("token %v: %+v, want %d", c.args, r, c.code)
		}
	}
}

func TestATokenIsGivenByFlagOrVariable(t *testing.T) {
	s := newShell(t)
	if _, _, err := s.control.CreateToken(t.Context(), "ci"); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(apitest.Exposed(s.control))
	t.Cleanup(server.Close)
	for _, c := range []struct {
		name, variable string
		args           []string
		code           int
	}{
		{"none", "", nil, 4},
		{"by variable", "secret-of-ci", nil, 0},
		{"by flag", "", []string{"--token", "secret-of-ci"}, 0},
		{"the flag wins", "secret-of-nobody", []string{"--token", "secret-of-ci"}, 0},
		{"a wrong one by variable", "secret-of-nobody", nil, 4},
		{"a wrong one by flag", "secret-of-ci", []string{"--token", "secret-of-nobody"}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &shell{T: t, vars: map[string]string{"DAYFLY_SERVER": server.URL, "DAYFLY_TOKEN": c.variable}}
			r := s.run(append([]string{"token", "list"}, c.args...)...)
			if r.code != c.code || c.code != 0 && !strings.Contains(r.err, "DAYFLY_TOKEN") {
				t.Errorf("got %+v, want %d", r, c.code)
			}
			if strings.Contains(r.err+r.out, "secret-of") {
				t.Errorf("a token is shown: %+v", r)
			}
		})
	}
}
