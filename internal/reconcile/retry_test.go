package reconcile

import (
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWhatFailsIsTriedLessAndLessOftenUntilSomethingElseIsWanted(t *testing.T) {
	now := time.Unix(1000, 0)
	r := newRetries()
	r.now = func() time.Time { return now }
	fail := func(id string, revision int64, n int) (waits []time.Duration) {
		for range n {
			waits = append(waits, r.failed(id, revision, errors.New("no room")))
		}
		return waits
	}
	ms := time.Millisecond
	want := []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 12800 * ms, 25600 * ms, 30000 * ms, 30000 * ms}
	if got := fail("a", 1, len(want)); !slices.Equal(got, want) {
		t.Errorf("waits %v, want %v", got, want)
	}
	if got := r.wait("a", 1); got != 30*time.Second {
		t.Errorf("is left alone for %v", got)
	}
	if got := r.problem("a", 1); got != "no room" {
		t.Errorf("its problem is %q", got)
	}
	now = now.Add(20 * time.Second)
	if got := r.wait("a", 1); got != 10*time.Second {
		t.Errorf("after 20 s it is left alone for %v", got)
	}
	if wait, problem := r.wait("a", 2), r.problem("a", 2); wait != 0 || problem != "" {
		t.Errorf("what is wanted now is left alone for %v because of %q", wait, problem)
	}
	if wait := r.wait("b", 1); wait != 0 {
		t.Errorf("another one is left alone for %v", wait)
	}
	now = now.Add(time.Minute)
	if got := r.wait("a", 1); got != 0 {
		t.Errorf("after its time it is left alone for %v", got)
	}
	if got := fail("a", 1, 1); got[0] != 30*time.Second {
		t.Errorf("a try that came late made the next one come after %v", got)
	}
	if got := fail("a", 2, 2); !slices.Equal(got, want[:2]) {
		t.Errorf("something else that is wanted waits %v", got)
	}
	r.done("a")
	if got := fail("a", 2, 1); got[0] != want[0] {
		t.Errorf("after it was done once it waits %v", got)
	}
}

func TestAWaitNeverShrinksNorExceedsTheLastUntilItIsDone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1000, 0)
		r := newRetries()
		r.now = func() time.Time { return now }
		last := time.Duration(0)
		for range rapid.IntRange(1, 100).Draw(t, "failures") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "later")))
			wait := r.failed("a", 7, errors.New("x"))
			if wait < max(last, firstRetry) || wait > lastRetry {
				t.Fatalf("waits %v after %v", wait, last)
			}
			if left := r.wait("a", 7); left != wait {
				t.Fatalf("%v of %v are left", left, wait)
			}
			last = wait
		}
	})
}
