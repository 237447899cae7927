package control

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
)

// temp is an environment that borrows the frontend.
func temp() dayfly.Environment {
	return dayfly.Environment{ID: "1", Name: "temp-1", Project: "shop", Services: []dayfly.EnvironmentService{
		{Name: "frontend", From: dayfly.FromBorrowed, Env: "production"}, {Name: "backend", From: dayfly.FromOwn, Env: "temp-1"},
	}}
}

func TestWhoDropsTheHeaderIsNamed(t *testing.T) {
	call := func(from, went string, c dayfly.Carried) dayfly.CallCount {
		var names []string
		if from != "" {
			names = strings.Split(from, "|")
		}
		return dayfly.CallCount{EnvironmentID: "1", Project: "shop", From: names, To: "backend", Went: went, Carried: c}
	}
	const lost, weak = "LOST ", "weak "
	for name, tc := range map[string]struct {
		calls []dayfly.CallCount
		want  []string
	}{
		"nobody calls":    {nil, nil},
		"a header":        {[]dayfly.CallCount{call("frontend", "temp-1", dayfly.Carried{Header: 4})}, nil},
		"baggage":         {[]dayfly.CallCount{call("frontend", "temp-1", dayfly.Carried{Baggage: 4})}, nil},
		"a host":          {[]dayfly.CallCount{call("frontend", "temp-1", dayfly.Carried{Host: 4})}, nil},
		"its own address": {[]dayfly.CallCount{call("frontend", "temp-1", dayfly.Carried{Address: 4, Source: 2})}, nil},
		"nothing": {
			[]dayfly.CallCount{call("frontend", "production", dayfly.Carried{Address: 12})},
			[]string{lost + "frontend was called 30 times for temp-1; 12 of 12 calls of frontend to backend carried nothing, and went to production"},
		},
		"mostly something": {
			[]dayfly.CallCount{call("frontend", "temp-1", dayfly.Carried{Header: 20}), call("frontend", "production", dayfly.Carried{Address: 2, Baseline: 1})},
			[]string{lost + "frontend was called 30 times for temp-1; 3 of 23 calls of frontend to backend carried nothing, and went to production"},
		},
		"one of two": {
			[]dayfly.CallCount{call("a|b", "production", dayfly.Carried{Address: 1})},
			[]string{lost + "1 of 1 calls of a or b to backend carried nothing, and went to production"},
		},
		"nobody knows who": {
			[]dayfly.CallCount{call("", "production", dayfly.Carried{Address: 1})},
			[]string{lost + "1 of 1 calls of somebody who cannot be seen to backend carried nothing, and went to production"},
		},
		"a trace": {
			[]dayfly.CallCount{call("frontend", "temp-1", dayfly.Carried{Header: 1, Trace: 2})},
			[]string{weak + "frontend was called 30 times for temp-1; 2 of 3 calls of frontend to backend carried nothing but a traceparent: they arrive for as long as the trace is remembered, a minute or two and less under heavy load"},
		},
		"another environment": {[]dayfly.CallCount{{EnvironmentID: "2", Project: "shop", From: []string{"frontend"}, To: "backend", Went: "production", Carried: dayfly.Carried{Address: 1}}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := propagation(temp(), dayfly.CallCounts{Calls: tc.calls, Served: []dayfly.ServedCount{
				{EnvironmentID: "1", Service: "frontend", Requests: 10}, {EnvironmentID: "1", Service: "frontend", Requests: 20}, {EnvironmentID: "2", Service: "frontend", Requests: 5},
			}})
			var got []string
			for _, d := range p.Dropped {
				mark := weak
				if d.Lost {
					mark = lost
				}
				got = append(got, mark+d.Message)
				if d.Advice == "" || d.To != "backend" {
					t.Errorf("it says %+v", d)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

func TestTheReportHasAllServicesAndOnlyTheCallsOfItsProject(t *testing.T) {
	since := time.Unix(1000, 0)
	p := propagation(temp(), dayfly.CallCounts{
		Since:  since,
		Served: []dayfly.ServedCount{{EnvironmentID: "1", Service: "gone", Requests: 2}, {EnvironmentID: "1", Service: "backend", Requests: 3}},
		Calls: []dayfly.CallCount{
			{EnvironmentID: "1", Project: "shop", From: []string{"b"}, To: "x", Went: "temp-1", Carried: dayfly.Carried{Header: 1}},
			{EnvironmentID: "1", Project: "shop", From: []string{"a"}, To: "x", Went: "temp-1", Carried: dayfly.Carried{Header: 1, Trace: 1}},
			{EnvironmentID: "1", Project: "shop", From: []string{"a"}, To: "y", Went: "temp-1"}, // being counted right now
			{EnvironmentID: "", Project: "shop", To: "backend", Went: "production", Carried: dayfly.Carried{Address: 7}},
			{EnvironmentID: "", Project: "shop", From: []string{"gone"}, To: "till", Went: "production", Carried: dayfly.Carried{Address: 5}},
			{EnvironmentID: "", Project: "shop", From: []string{"gone"}, To: "till", Went: "temp-1", Carried: dayfly.Carried{Address: 6}},
			{EnvironmentID: "", Project: "shop", From: []string{"frontend"}, To: "till", Went: "production", Carried: dayfly.Carried{Address: 8}}, // which was not called
			{EnvironmentID: "", Project: "blog", To: "backend", Went: "production", Carried: dayfly.Carried{Address: 9}},
		},
	})
	want := []dayfly.Called{
		{Service: "backend", From: dayfly.FromOwn, Env: "temp-1", Requests: 3}, {Service: "frontend", From: dayfly.FromBorrowed, Env: "production"}, {Service: "gone", Requests: 2},
	}
	if !slices.Equal(p.Called, want) || !p.Since.Equal(since) || p.Environment != "temp-1" || p.Project != "shop" || len(p.Unseen) == 0 {
		t.Errorf("%+v", p)
	}
	if len(p.Calls) != 2 || p.Calls[0].From[0] != "a" || p.Calls[0].Total != 2 || p.Calls[1].From[0] != "b" {
		t.Errorf("the calls are %+v", p.Calls)
	}
	if len(p.Unattributed) != 4 || p.Unattributed[0].Total != 7 || p.Unattributed[0].From == nil {
		t.Errorf("unattributed are %+v", p.Unattributed)
	}
	const message = "gone was called twice for temp-1; calls of it to till carried nothing while it was called for several environments, this one perhaps among them: 5 of them went to production"
	if i := slices.IndexFunc(p.Dropped, func(d dayfly.Dropped) bool { return d.Perhaps }); i < 0 || p.Dropped[i].Message != message || p.Dropped[i].Lost {
		t.Errorf("%+v", p.Dropped)
	} else if slices.ContainsFunc(p.Dropped[i+1:], func(d dayfly.Dropped) bool { return d.Perhaps }) {
		t.Errorf("more than one is perhaps dropped: %+v", p.Dropped)
	}
}
