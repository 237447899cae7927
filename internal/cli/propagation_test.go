package cli_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
)

func TestPropagationShowsWhoDropsTheHeader(t *testing.T) {
	s := newShell(t)
	s.add("temp-1")
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	p := dayfly.Propagation{
		Server: "host-1", Since: since,
		Called: []dayfly.Called{{Service: "frontend", From: dayfly.FromBorrowed, Env: "production", Requests: 14}, {Service: "old"}},
		Calls: []dayfly.Calls{
			{From: []string{"a", "b"}, To: "backend", Env: "temp-1", Total: 4, Carried: dayfly.Carried{Header: 1, Baggage: 1, Host: 1, Trace: 1}},
			{From: []string{}, To: "backend", Env: "production", Total: 12, Carried: dayfly.Carried{Source: 1, Address: 10, Baseline: 1}},
		},
		Unattributed: []dayfly.Calls{{From: []string{}, To: "backend", Env: "production", Total: 3, Carried: dayfly.Carried{Baseline: 3}}},
		Dropped: []dayfly.Dropped{
			{From: []string{"frontend"}, To: "backend", Calls: 12, Env: "production", Lost: true, Message: "it drops it", Advice: "hand it on"},
			{From: []string{"frontend"}, To: "backend", Calls: 1, Message: "it arrives", Advice: "hand it on, too"},
			{From: []string{"frontend"}, To: "backend", Calls: 1, Perhaps: true, Message: "who knows", Advice: "hand it on"},
		},
		Unseen: []string{"much", "more"},
	}
	s.control.SetPropagation(p)
	r := s.run("propagation", "temp-1")
	if r.code != 0 || r.err != "" {
		t.Errorf("it ends with %d: %q", r.code, r.err)
	}
	same(t, r.out, `requests for temp-1, as server host-1 counts them since 2026-01-02 03:04:05

SERVICE    FROM                    CALLED
frontend   borrowed (production)   14
old        -                       0

FROM   TO        OF           CALLS   HEADER   BAGGAGE   HOST   TRACE   SOURCE   ADDRESS   NOTHING
a|b    backend   temp-1       4       1        1         1      1       0        0         0
-      backend   production   12      0        0         0      0       1        10        1

carried nothing while requests for several environments of shop were answered:
FROM   TO        OF           CALLS   HEADER   BAGGAGE   HOST   TRACE   SOURCE   ADDRESS   NOTHING
-      backend   production   3       0        0         0      0       0        0         3

LOST   it drops it
       -> hand it on
weak   it arrives
       -> hand it on, too
lost?  who knows
       -> hand it on

not seen:
- much
- more
`)
	r = s.run("propagation", "temp-1", "-o", "json")
	if got := onlyJSON[dayfly.Propagation](t, r.out); r.code != 0 || len(got.Calls) != 2 || got.Dropped[0].Message != "it drops it" {
		t.Errorf("as JSON it ends with %d: %s", r.code, r.out)
	}
	// What arrives, if weakly, is not lost.
	p.Dropped, p.Unattributed = p.Dropped[1:], nil
	s.control.SetPropagation(p)
	if out := s.ok("propagation", "temp-1"); strings.Contains(out, "LOST") || strings.Contains(out, "while requests") {
		t.Errorf("it shows %s", out)
	}
	p.Dropped = nil
	s.control.SetPropagation(p)
	if out := s.ok("propagation", "temp-1"); !strings.Contains(out, "ok     no call that was seen has gone to another environment\n") {
		t.Errorf("it shows %s", out)
	}
	if r := s.run("propagation", "nobody"); r.code != 3 || !strings.Contains(r.err, "nobody") {
		t.Errorf("of an unknown one it ends with %d: %s", r.code, r.err)
	}
	if r := s.run("propagation"); r.code != 2 {
		t.Errorf("without a name it ends with %d", r.code)
	}
}
