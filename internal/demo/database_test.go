package demo

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/api/client"
)

// answering makes a tour whose server answers calls of its API, "METHOD path", each time with the next
// text of its list, and with the last one from then on.
func answering(t *testing.T, answers map[string][]string) (made *tour, out *bytes.Buffer) {
	t.Helper()
	asked := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := r.Method + " " + r.URL.Path
		list := answers[call]
		if len(list) == 0 {
			http.Error(w, call, http.StatusNotFound)
			return
		}
		answer := list[min(asked[call], len(list)-1)]
		asked[call]++
		w.Header().Set("Content-Type", "application/json")
		if strings.HasPrefix(answer, `{"status":503`) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(server.Close)
	out = &bytes.Buffer{}
	return &tour{Options: Options{Out: out}, api: client.New(server.URL, "")}, out
}

func TestTheOrdersAreLoadedOrLeftOutOrTheTourSaysWhyNot(t *testing.T) {
	const create, show = "POST /v1/templates", "GET /v1/templates/t1"
	loadingNow := `{"id":"t1","name":"shop","status":"loading"}`
	for _, c := range []struct {
		name      string
		answers   map[string][]string
		databases bool
		shown     string
		failure   string // "" = none
	}{
		{"loaded", map[string][]string{create: {loadingNow}, show: {loadingNow, `{"id":"t1","status":"ready","engine":"postgres","engine_version":"15","driver":"btrfs","size_bytes":2000000}`}},
			true, "loaded: 2MB by postgres 15; copied by btrfs", ""},
		{"failed", map[string][]string{create: {loadingNow}, show: {`{"id":"t1","status":"failed","message":"the disk is full"}`}}, false, "A template", "the disk is full"},
		{"no databases there", map[string][]string{create: {`{"status":503,"code":"unavailable","detail":"this server keeps no databases: install postgresql"}`}},
			false, "Left out, so the shop keeps its orders in memory: install postgresql\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			made, out := answering(t, c.answers)
			err := made.loadOrders(t.Context())
			if c.failure == "" && err != nil || c.failure != "" && (err == nil || !strings.Contains(err.Error(), c.failure)) {
				t.Errorf("it ends with %v", err)
			}
			if made.databases != c.databases || !strings.Contains(out.String(), c.shown) {
				t.Errorf("databases: %v; it says %q", made.databases, out)
			}
		})
	}
}

func TestTheRepositoryAsksForADatabaseOnlyWhereThereAreSome(t *testing.T) {
	for _, with := range []bool{false, true} {
		made := &tour{repo: t.TempDir() + "/shop", databases: with}
		if err := made.makeRepository(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, branch := range []string{"main", "summer-sale"} {
			file := made.output(t, "show", branch+":compose.yaml")
			if got := strings.Contains(file, "databases:"); got != with {
				t.Errorf("with databases %v, %s says\n%s", with, branch, file)
			}
			if got := made.output(t, "ls-tree", "--name-only", branch, "db/orders.sql") != ""; got != with {
				t.Errorf("with databases %v, %s has the orders: %v", with, branch, got)
			}
		}
		if changed := made.output(t, "diff", "--name-only", "main", "summer-sale"); changed != version {
			t.Errorf("the branches differ in %q", changed)
		}
	}
}

func TestSizesAreWrittenAlsoWhereTheyAreNotKnown(t *testing.T) {
	n := int64(204800)
	if got := size(&n); got != "204.8kB" {
		t.Errorf("%d bytes are %q", n, got)
	}
	if got := size(nil); !strings.Contains(got, "unknown") {
		t.Errorf("no size is %q", got)
	}
}
