package api_test

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
)

// report is one with something of everything.
func report() dayfly.Propagation {
	return dayfly.Propagation{
		Server: "host-1", Since: time.Unix(1000, 0).UTC(),
		Called:       []dayfly.Called{{Service: "frontend", From: dayfly.FromBorrowed, Env: "production", Requests: 14}},
		Calls:        []dayfly.Calls{{From: []string{"frontend"}, To: "backend", Env: "production", Total: 12, Carried: dayfly.Carried{Address: 12}}},
		Unattributed: []dayfly.Calls{{From: []string{}, To: "backend", Env: "production", Total: 3, Carried: dayfly.Carried{Baseline: 3}}},
		Dropped:      []dayfly.Dropped{{From: []string{"frontend"}, To: "backend", Calls: 12, Env: "production", Lost: true, Message: "m", Advice: "a"}},
		Unseen:       []string{"much"},
	}
}

func TestTheReportOfPropagationIsWhatWasCounted(t *testing.T) {
	r := newRig(t)
	r.add("a")
	r.control.SetPropagation(report())
	answer := r.call("GET", "/v1/environments/a/propagation", "")
	got, want := decode[dayfly.Propagation](r, answer, http.StatusOK), report()
	want.Environment, want.Project = "a", got.Project
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	flat := strings.Join(strings.Fields(answer.body), "")
	if !strings.Contains(flat, `{"from":["frontend"],"to":"backend","env":"production","total":12,"header":0,"baggage":0,"host":0,"trace":0,"source":0,"address":12,"baseline":0}`) {
		t.Errorf("as JSON it is %s", answer.body)
	}
	r.refusal(r.call("GET", "/v1/environments/nobody/propagation", ""), http.StatusNotFound, "not_found")
}
