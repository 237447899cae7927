package control_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// hook is one of the shop's repository about a branch, signed as it should be.
func (w *world) hook(secret dayfly.Secret, id, branch string, age time.Duration) dayfly.Hook {
	w.Helper()
	h := dayfly.Hook{
		ID: id, Timestamp: strconv.FormatInt(w.clock.Now().Add(-age).Unix(), 10),
		Body: []byte(`{"ref":"refs/heads/` + branch + `"}`), Repository: "git@git.example:acme/shop.git", Ref: "refs/heads/" + branch,
	}
	h.Signature = "v1a,other v1," + w.signature(secret, h)
	return h
}

func (w *world) signature(secret dayfly.Secret, h dayfly.Hook) string {
	w.Helper()
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret.Reveal(), "whsec_"))
	if err != nil {
		w.Fatal(err)
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", h.ID, h.Timestamp, h.Body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func (w *world) secret(project string) dayfly.Secret {
	w.Helper()
	secret, err := w.NewHookSecret(w.Context(), project)
	if err != nil {
		w.Fatal(err)
	}
	return secret
}

func TestAHookIsFollowedAtOnce(t *testing.T) {
	w := followed(t)
	secret := w.secret("shop")
	w.holds(shopRepo, "main=m1", "a=a1", "b=b2", "c=c1")
	results, err := w.ReceiveHook(t.Context(), w.hook(secret, "1", "c", 0))
	if err != nil || len(results) != 1 || results[0] != (dayfly.HookResult{Project: "shop", Branch: "c", Result: "followed"}) {
		t.Errorf("%+v, %v", results, err)
	}
	w.are("shop-a", "shop-b", "shop-c")
	if got := w.resolution("shop-b").Value.Services[0].Commit; got != "b2" {
		t.Errorf("b is at %s", got)
	}
}

func TestAHookThatIsNotSignedOrOldIsRefused(t *testing.T) {
	const minutes = time.Minute
	for name, change := range map[string]func(*world, *dayfly.Hook, dayfly.Secret){
		"no signature": func(_ *world, h *dayfly.Hook, _ dayfly.Secret) { h.Signature = "" },
		"another version": func(_ *world, h *dayfly.Hook, _ dayfly.Secret) {
			h.Signature = strings.ReplaceAll(h.Signature, "v1,", "v2,")
		},
		"no base64":          func(_ *world, h *dayfly.Hook, _ dayfly.Secret) { h.Signature = "v1,%%%" },
		"another body":       func(_ *world, h *dayfly.Hook, _ dayfly.Secret) { h.Body = append(h.Body, ' ') },
		"another id":         func(_ *world, h *dayfly.Hook, _ dayfly.Secret) { h.ID = "2" },
		"no id":              func(_ *world, h *dayfly.Hook, _ dayfly.Secret) { h.ID = "" },
		"no time":            func(_ *world, h *dayfly.Hook, _ dayfly.Secret) { h.Timestamp = "" },
		"too old":            func(w *world, h *dayfly.Hook, s dayfly.Secret) { *h = w.hook(s, "1", "c", 5*minutes+time.Second) },
		"too far ahead":      func(w *world, h *dayfly.Hook, s dayfly.Secret) { *h = w.hook(s, "1", "c", -5*minutes-time.Second) },
		"the secret before":  func(w *world, _ *dayfly.Hook, _ dayfly.Secret) { w.secret("shop") },
		"another repository": func(_ *world, h *dayfly.Hook, _ dayfly.Secret) { h.Repository = "https://git.example/acme/other" },
		"another one's secret": func(w *world, h *dayfly.Hook, _ dayfly.Secret) {
			if _, _, err := w.CreateProject(w.Context(), dayfly.ProjectRequest{Name: "other", Repo: "https://git.example/acme/other"}); err != nil {
				w.Fatal(err)
			}
			*h = w.hook(w.secret("other"), "1", "c", 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := followed(t)
			secret := w.secret("shop")
			w.holds(shopRepo, "main=m1", "a=a1", "b=b1", "c=c1")
			h := w.hook(secret, "1", "c", 0)
			change(w, &h, secret)
			results, err := w.ReceiveHook(t.Context(), h)
			refused(t, err, dayfly.CodeUnauthorized, "dayfly project hook")
			if len(results) != 0 {
				t.Errorf("results %+v", results)
			}
			w.are("shop-a", "shop-b")
		})
	}
}

func TestTheEdgesOfAHooksWindowAreInIt(t *testing.T) {
	w := followed(t)
	secret := w.secret("shop")
	for id, age := range map[string]time.Duration{"old": 5 * time.Minute, "ahead": -5 * time.Minute} {
		if _, err := w.ReceiveHook(t.Context(), w.hook(secret, id, "a", age)); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestAHookThatComesAgainIsPassedOverForAsLongAsItCounts(t *testing.T) {
	w := followed(t)
	h := w.hook(w.secret("shop"), "1", "a", -5*time.Minute)
	for i, want := range []string{"", "it was delivered already", "it was delivered already"} {
		results, err := w.ReceiveHook(t.Context(), h)
		if err != nil || len(results) != 1 || results[0].Reason != want {
			t.Errorf("time %d: %+v, %v", i, results, err)
		}
		w.clock.forward(dayfly.Duration(5 * time.Minute))
	}
	w.clock.forward(dayfly.Duration(time.Second))
	_, err := w.ReceiveHook(t.Context(), h)
	refused(t, err, dayfly.CodeUnauthorized)
}

func TestWhoIsRefusedCannotFillTheEventsOfAProject(t *testing.T) {
	w := followed(t)
	w.secret("shop")
	other := dayfly.NewSecret("whsec_" + base64.StdEncoding.EncodeToString([]byte("another")))
	for i := range 100 {
		_, err := w.ReceiveHook(t.Context(), w.hook(other, strconv.Itoa(i), "a", time.Duration(i)*time.Minute))
		refused(t, err, dayfly.CodeUnauthorized)
	}
	// Once for the wrong signature, and once for the wrong time.
	if n := w.reasons(w.project().ID)["hook-refused"]; n != 2 {
		t.Errorf("told %d times within a minute", n)
	}
	w.clock.forward(hour)
	_, err := w.ReceiveHook(t.Context(), w.hook(other, "later", "a", 0))
	refused(t, err, dayfly.CodeUnauthorized)
	if n := w.reasons(w.project().ID)["hook-refused"]; n != 3 {
		t.Errorf("told %d times in an hour", n)
	}
}

func TestAHookSaysWhyNothingCameOfIt(t *testing.T) {
	w := followed(t)
	secret := w.secret("shop")
	w.git.change(func() { w.git.branches = dayfly.BranchPatterns{"a"} })
	w.holds(shopRepo, "main=m2", "a=a1", "b=b1", "c=c1")
	for i, c := range []struct{ ref, reason string }{
		{"refs/heads/c", "no pattern of x-dayfly.branches matches c"},
		{"refs/notes/x", "nothing follows refs/notes/x"},
		{"refs/heads/a", ""}, {"refs/heads/gone", ""}, {"refs/tags/v1", ""}, {"", ""},
	} {
		h := w.hook(secret, strconv.Itoa(i), "c", 0)
		h.Ref = c.ref
		if results, err := w.ReceiveHook(t.Context(), h); err != nil || len(results) != 1 || results[0].Reason != c.reason {
			t.Errorf("%s: %+v, %v", c.ref, results, err)
		}
	}
}

func TestAHookOfOneRepositoryIsFollowedWhileAnotherDoesNotAnswer(t *testing.T) {
	w := followed(t)
	w.git.change(func() {
		w.git.repos = []string{"https://git.example/acme/api"}
		w.git.silent = map[string]bool{"https://git.example/acme/api": true}
	})
	w.holds(shopRepo, "main=m2", "a=a1", "b=b1", "c=c1")
	w.follow("shop")
	w.holds(shopRepo, "main=m2", "a=a1", "b=b1", "c=c1", "d=d1")
	if results, err := w.ReceiveHook(t.Context(), w.hook(w.secret("shop"), "1", "d", 0)); err != nil || results[0].Result != "followed" {
		t.Errorf("%+v, %v", results, err)
	}
	w.are("shop-a", "shop-b", "shop-c", "shop-d")
	w.git.change(func() { w.git.silent[shopRepo] = true })
	if results, err := w.ReceiveHook(t.Context(), w.hook(w.secret("shop"), "2", "d", 0)); err != nil || !strings.Contains(results[0].Reason, "does not answer") {
		t.Errorf("%+v, %v", results, err)
	}
}

func TestEachProjectOfARepositoryHasASecretOfItsOwnThatIsNeverTold(t *testing.T) {
	w := followed(t)
	if _, _, err := w.CreateProject(t.Context(), dayfly.ProjectRequest{Name: "second", Repo: shopRepo}); err != nil {
		t.Fatal(err)
	}
	secrets := []dayfly.Secret{w.secret("shop"), w.secret("second")}
	both := w.hook(secrets[0], "1", "a", 0)
	both.Signature += " v1," + w.signature(secrets[1], both)
	for i, c := range []struct {
		hook dayfly.Hook
		want string
	}{
		{both, "second shop"}, {w.hook(secrets[0], "2", "a", 0), "shop"}, {w.hook(secrets[1], "2", "a", 0), "second"},
	} {
		results, err := w.ReceiveHook(t.Context(), c.hook)
		var got []string
		for _, r := range results {
			got = append(got, r.Project)
		}
		if strings.Join(got, " ") != c.want || err != nil {
			t.Errorf("hook %d: %+v, %v", i, results, err)
		}
	}
	w.secret("shop") // replaced: the one before is gone
	if n := registry.Len(w.cache, registry.Credentials); n != 2 {
		t.Errorf("there are %d credentials", n)
	}
	for _, name := range []string{"shop", "second"} {
		p, err := w.Project(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		events, err := w.ProjectEvents(t.Context(), name)
		if err != nil || len(events) == 0 && name == "second" {
			t.Errorf("%s has the events %v, %v", name, events, err)
		}
		for _, secret := range secrets {
			if text := fmt.Sprintf("%+v %+v", p, events); strings.Contains(text, strings.TrimPrefix(secret.Reveal(), "whsec_")) {
				t.Errorf("%s tells a secret: %s", name, text)
			}
		}
	}
}
