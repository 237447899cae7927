package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
)

func TestAnInstanceIsRegisteredRenewedShownAndEnded(t *testing.T) {
	r := newRig(t)
	const path = "/v1/services/web/instances/build-7:1"
	// Who others say that he is does not count.
	lie := []string{"X-Forwarded-For: 10.9.8.7", "X-Real-Ip: 10.9.8.7", "Forwarded: for=10.9.8.7"}
	made := decode[dayfly.InstanceInfo](r, r.call("PUT", path, `{"version":"0.0.2","address":":8080","env":"temp","project":"shop","ttl":"90s"}`, lie...), 201)
	got, ok := r.control.Registered("web", "build-7:1")
	want := dayfly.RegistrationRequest{Service: "web", ID: "build-7:1", Version: "0.0.2", Address: ":8080", Sender: "127.0.0.1", Environment: "temp", Project: "shop", TTL: dayfly.Duration(90 * time.Second)}
	if !ok || got != want || made.ID != "build-7:1" || made.TTL != want.TTL {
		t.Errorf("asked for %+v, want %+v; answered %+v", got, want, made)
	}
	decode[dayfly.InstanceInfo](r, r.call("PUT", path, `{"version":"0.0.2","address":":8080"}`), 200)
	if got, _ := r.control.Registered("web", "build-7:1"); got.TTL != 0 || got.Project != "" {
		t.Errorf("what is left out is %+v", got)
	}
	decode[dayfly.InstanceInfo](r, r.call("GET", path, ""), 200)
	if got := r.call("DELETE", path+"?wait=1s", ""); got.status != 204 || got.body != "" {
		t.Errorf("ended with %d %s", got.status, got.body)
	}
	r.refusal(r.call("DELETE", path, ""), 404, "not_found")
	r.refusal(r.call("GET", path, ""), 404, "not_found")
}

func TestADurationThatIsNoneIsNamed(t *testing.T) {
	r := newRig(t)
	for call, field := range map[string]string{
		`PUT /v1/services/web/instances/a {"version":"1","address":":1","ttl":"soon"}`: "ttl",
		`PUT /v1/services/web/instances/a {"version":"1","address":":1","ttl":"-1s"}`:  "ttl",
		`PUT /v1/services/web/instances/a {"version":1,"address":":1"}`:                "version",
		`PUT /v1/services/web/instances/a {"version":"1","addr":":1"}`:                 "addr",
		`DELETE /v1/services/web/instances/a?wait=soon `:                               "wait",
	} {
		parts := strings.SplitN(call, " ", 3)
		p := r.refusal(r.call(parts[0], parts[1], parts[2]), 422, "invalid")
		if len(p.Problems) != 1 || p.Problems[0].Field != field {
			t.Errorf("%s: %+v, want that %s is wrong", call, p.Problems, field)
		}
	}
	// A life that is said to be none is not the usual one.
	r.call("PUT", "/v1/services/web/instances/a", `{"version":"1","address":":1","ttl":"0s"}`)
	if got, _ := r.control.Registered("web", "a"); got.TTL >= 0 {
		t.Errorf("0s is taken for %s", got.TTL)
	}
}

func TestRoutesAreMadeChangedShownAndRemoved(t *testing.T) {
	r := newRig(t)
	made := decode[dayfly.Route](r, r.call("PUT", "/v1/routes/docs", `{"host":"docs.localhost","path":"/a","to":"http://x","strip":true}`), 201)
	if made.Name != "docs" || made.Host != "docs.localhost" || made.Path != "/a" || made.To != "http://x" || !made.Strip {
		t.Errorf("made %+v", made)
	}
	decode[dayfly.Route](r, r.call("PUT", "/v1/routes/docs", `{"host":"docs.localhost","to":"http://y"}`), 200)
	if got := decode[dayfly.Route](r, r.call("GET", "/v1/routes/docs", ""), 200); got.To != "http://y" || got.Strip {
		t.Errorf("changed to %+v", got)
	}
	list := decode[struct{ Items []dayfly.Route }](r, r.call("GET", "/v1/routes", ""), 200)
	if len(list.Items) != 1 {
		t.Errorf("listed %+v", list)
	}
	if got := r.call("DELETE", "/v1/routes/docs", ""); got.status != 204 {
		t.Errorf("removed with %d", got.status)
	}
	r.refusal(r.call("GET", "/v1/routes/docs", ""), 404, "not_found")
	r.refusal(r.call("PUT", "/v1/routes/docs", `{"host":"a","too":"http://x"}`), 422, "invalid")
}
