package proxy

import (
	"fmt"
	"testing"
	"time"
)

func parent(n int) string { return fmt.Sprintf("00-%032x-00f067aa0ba902b7-01", n+1) }

func TestATraceIsOfTheEnvironmentItBeganIn(t *testing.T) {
	now := time.Unix(1000, 0)
	tr := newTraces(func() time.Time { return now })
	tr.remember(parent(1), "a")
	tr.remember(parent(1), "a")
	tr.remember(parent(2), "b")
	for _, bad := range []string{"", "00-1-2-3", "nothing"} {
		tr.remember(bad, "c")
		if got := tr.environment(bad); got != "" {
			t.Errorf("%q is of %s", bad, got)
		}
	}
	if a, b, none := tr.environment(parent(1)), tr.environment(parent(2)), tr.environment(parent(3)); a != "a" || b != "b" || none != "" {
		t.Errorf("they are of %q, %q and %q", a, b, none)
	}
	// Of two environments it is of none, for good.
	tr.remember(parent(1), "b")
	tr.remember(parent(1), "a")
	if got := tr.environment(parent(1)); got != "" {
		t.Errorf("a trace of two is of %s", got)
	}
	now = now.Add(traceLife + time.Second)
	if got := tr.environment(parent(2)); got != "b" {
		t.Errorf("after a generation it is of %q", got)
	}
	now = now.Add(traceLife)
	if got := tr.environment(parent(2)); got != "" {
		t.Errorf("it is never forgotten: %q", got)
	}
}

func TestTracesAreForgottenWhenThereAreTooMany(t *testing.T) {
	tr := newTraces(func() time.Time { return time.Unix(1000, 0) })
	const many = 4 * traceShards * traceShard
	for n := range many {
		tr.remember(parent(n), "a")
	}
	held := 0
	for i := range tr.shards {
		held += len(tr.shards[i].young) + len(tr.shards[i].old)
	}
	if held > 2*traceShards*traceShard {
		t.Errorf("%d traces are held", held)
	}
	if tr.environment(parent(0)) != "" || tr.environment(parent(many-1)) != "a" {
		t.Error("the oldest is remembered, or the youngest is not")
	}
}
