package app

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
)

func TestADatabaseLivesAtLeastAsLongAsItIsExtendedBy(t *testing.T) {
	s := storing(t, func(c *Config) { c.AllowForever = true })
	s.template("shop", "x")
	made := s.database(dayfly.DatabaseRequest{Name: "mine", Keep: dayfly.Duration(10 * time.Hour)})
	extend := func(by time.Duration) dayfly.Database {
		t.Helper()
		d, err := s.ExtendDatabase(t.Context(), "mine", dayfly.Duration(by))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if d := extend(time.Hour); d.ExpiresAt == nil || !d.ExpiresAt.Equal(*made.ExpiresAt) {
		t.Errorf("extending by less than it has left made %v of %v", d.ExpiresAt, made.ExpiresAt)
	}
	longer := extend(20 * time.Hour)
	if longer.ExpiresAt == nil || longer.ExpiresAt.Before(made.ExpiresAt.Add(10*time.Hour)) || longer.Revision <= made.Revision {
		t.Errorf("extending by more made %v (revision %d) of %v (%d)", longer.ExpiresAt, longer.Revision, made.ExpiresAt, made.Revision)
	}
	if longer.URL != made.URL || longer.Status != dayfly.DatabaseReady {
		t.Errorf("it is %s at %s now, was at %s", longer.Status, longer.URL, made.URL)
	}
	if d, err := s.ExtendDatabase(t.Context(), made.ID, dayfly.Forever); err != nil || d.ExpiresAt != nil {
		t.Errorf("for ever it expires at %v, %v", d.ExpiresAt, err)
	}
	if d := extend(time.Hour); d.ExpiresAt != nil {
		t.Errorf("what lives for ever expires at %v since it was extended", d.ExpiresAt)
	}
}

func TestADatabaseThatWasExtendedOutlivesItsFirstEnd(t *testing.T) {
	s := storing(t)
	s.template("shop", "x")
	first := s.database(dayfly.DatabaseRequest{Name: "first", Keep: dayfly.Duration(3 * time.Second)})
	second := s.database(dayfly.DatabaseRequest{Name: "second", Keep: dayfly.Duration(3 * time.Second)})
	if _, err := s.ExtendDatabase(t.Context(), "first", dayfly.Duration(time.Hour)); err != nil {
		t.Fatal(err)
	}
	s.gone(second.ID)
	if now := s.settled(first.ID, dayfly.DatabaseReady); now.ExpiresAt == nil {
		t.Errorf("it is %+v", now)
	}
}

func TestExtendingADatabaseIsRefusedWhereEnvironmentsRefuseItAndSaysWhatToDo(t *testing.T) {
	s := storing(t)
	s.template("shop", "x")
	made := s.database(dayfly.DatabaseRequest{Name: "mine"})
	extend := func(name string, by dayfly.Duration) error {
		_, err := s.ExtendDatabase(t.Context(), name, by)
		return err
	}
	refusedWith(t, extend("gone", dayfly.Duration(time.Hour)), dayfly.CodeNotFound, "gone", "db list")
	refusedWith(t, extend("mine", dayfly.Duration(49*time.Hour)), dayfly.CodeInvalid, "extend", "--max-keep 2d")
	refusedWith(t, extend("mine", 0), dayfly.CodeInvalid, "extend", "longer than nothing")
	refusedWith(t, extend("mine", dayfly.Forever), dayfly.CodeForbidden, "allow-forever")
	if now, err := s.Database(t.Context(), "mine"); err != nil || now.Revision != made.Revision || !now.ExpiresAt.Equal(*made.ExpiresAt) {
		t.Errorf("what was refused changed it to %+v, %v", now, err)
	}

	s.project("services: {web: {x-dayfly: {process: {run: [sleep, '1000']}}}}\nx-dayfly: {databases: {db: {template: shop}}}\n", nil)
	if _, _, err := s.CreateEnvironment(t.Context(), dayfly.EnvironmentRequest{Spec: dayfly.EnvironmentSpec{Project: "shop", Branch: "main"}}); err != nil {
		t.Fatal(err)
	}
	refusedWith(t, extend("shop-main.db", dayfly.Duration(time.Hour)), dayfly.CodeConflict, "environment shop-main", "dayfly extend shop-main")

	held := s.host.Hold("Remove")
	defer held()
	if _, err := s.DeleteDatabase(t.Context(), "mine", false); err != nil {
		t.Fatal(err)
	}
	refusedWith(t, extend("mine", dayfly.Duration(time.Hour)), dayfly.CodeConflict, "being deleted")
}

func TestADatabaseIsExtendedOnlyAtTheRevisionThatWasNamed(t *testing.T) {
	s := storing(t)
	s.template("shop", "x")
	d := s.database(dayfly.DatabaseRequest{Name: "mine", Keep: dayfly.Duration(time.Hour)})
	_, address, _ := s.app.Addresses()
	patch := func(match, body string) (status int, tag string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, "http://"+address+"/v1/databases/mine", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if match != "" {
			req.Header.Set("If-Match", match)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("ETag")
	}
	old := strconv.Quote(strconv.FormatInt(d.Revision, 10))
	status, tag := patch(old, `{"extend": "10h"}`)
	if status != http.StatusOK || tag == old || tag == "" {
		t.Errorf("at its revision %s: %d, it has %s", old, status, tag)
	}
	for _, c := range []struct {
		match, body string
		want        int
	}{
		{old, `{"extend": "20h"}`, http.StatusConflict},
		{tag, `{"extend": "soon"}`, http.StatusUnprocessableEntity},
		{tag, `{"keep": "1h"}`, http.StatusUnprocessableEntity},
		{tag, ``, http.StatusUnprocessableEntity},
		{`"x"`, `{}`, http.StatusUnprocessableEntity},
	} {
		if got, _ := patch(c.match, c.body); got != c.want {
			t.Errorf("%s with %s: %d, want %d", c.body, c.match, got, c.want)
		}
	}
	now, err := s.Database(t.Context(), "mine")
	if err != nil || strconv.Quote(strconv.FormatInt(now.Revision, 10)) != tag {
		t.Errorf("what was refused changed it to %+v, %v", now, err)
	}
	if status, same := patch("", `{}`); status != http.StatusOK || same == "" {
		t.Errorf("without a revision: %d %s", status, same)
	}
}
