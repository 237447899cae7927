package reconcile_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/runner"
)

// unprepared is a runner on which nothing can be prepared, until it is mended.
type unprepared struct {
	runner.Runner
	mu     sync.Mutex
	mended bool
	tries  []time.Time
	tried  chan struct{} // told of each
}

func (u *unprepared) Prepare(ctx context.Context, d dayfly.Deployment) error {
	u.mu.Lock()
	u.tries = append(u.tries, time.Now())
	mended := u.mended
	u.mu.Unlock()
	select {
	case u.tried <- struct{}{}:
	default:
	}
	if mended {
		return u.Runner.Prepare(ctx, d)
	}
	return dayfly.Errorf(dayfly.CodeUnavailable, "the disk is full")
}

func (u *unprepared) mend() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.mended = true
}

func (u *unprepared) when() []time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.tries)
}

// onUnprepared makes a world whose runner prepares nothing until it is mended.
func onUnprepared(t *testing.T) (*world, *unprepared) {
	t.Helper()
	w := newWorld(t, kinds()[0])
	u := &unprepared{tried: make(chan struct{}, 1000)}
	open := w.host.open
	w.host.open = func() runner.Runner {
		u.Runner = open()
		return u
	}
	w.start()
	return w, u
}

func (u *unprepared) triedTimes(t *testing.T, n int) []time.Time {
	t.Helper()
	patience := time.After(time.Minute)
	for {
		if tries := u.when(); len(tries) >= n {
			return tries
		}
		select {
		case <-u.tried:
		case <-patience:
			t.Fatalf("tried %d times, want %d", len(u.when()), n)
		}
	}
}

func TestADeploymentThatCannotBePreparedIsTriedLessAndLessOftenAndSaysWhy(t *testing.T) {
	w, u := onUnprepared(t)
	w.create(service("web", web, "1", nil))
	tries := u.triedTimes(t, 6)
	// A timer never ends too early, so this holds on the slowest machine.
	wait := 100 * time.Millisecond
	for i := 1; i < 6; i++ {
		if gap := tries[i].Sub(tries[i-1]); gap < wait {
			t.Errorf("try %d came %v after the one before, want %v at least", i+1, gap, wait)
		}
		wait *= 2
	}
	w.until("says why", func() bool {
		return strings.Contains(w.view().Message, "web: could not be prepared, and is tried again: the disk is full")
	})
	u.mend()
	w.versions(dayfly.PhaseReady, "1", 1)
	if message := w.view().Message; message != "" {
		t.Errorf("ready it says %q", message)
	}
	w.stop()
	told := slices.DeleteFunc(w.events(), func(e string) bool { return !strings.Contains(e, "the disk is full") })
	if len(told) != 1 {
		t.Errorf("the problem was told as %q", told)
	}
}

func TestADeploymentThatCannotBePreparedGoesAtOnceWhenNobodyWantsItAnyMore(t *testing.T) {
	w, u := onUnprepared(t)
	w.create(service("web", web, "1", nil))
	u.triedTimes(t, 4)
	w.delete()
	w.until("gone", func() bool { _, there := w.gather(); return !there })
	before := len(u.when())
	w.restart()
	w.create(service("web", web, "2", nil)) // brings every pass that may be left
	u.mend()
	w.versions(dayfly.PhaseReady, "2", 1)
	if before == 0 {
		t.Error("it was never tried")
	}
}

func TestWhatIsToldOfAServiceComesInTheOrderInWhichItHappens(t *testing.T) {
	onAll(t, func(w *world) {
		w.create(chain("1")...)
		w.versions(dayfly.PhaseReady, "1", 3)
		w.stop() // writes what is still to be told
		events := w.events()
		for service, steps := range map[string][]string{
			"migrate":  {"preparing migrate at 1", "starting 1 of migrate", "migrate has completed"},
			"backend":  {"preparing backend at 1", "starting 1 of backend", "backend is healthy", "backend takes requests"},
			"frontend": {"preparing frontend at 1", "starting 1 of frontend", "frontend is healthy", "frontend takes requests"},
		} {
			at := -1
			for _, step := range steps {
				next := slices.Index(events, step)
				if next <= at {
					w.Errorf("%s: %q is number %d, the one before %d: %q", service, step, next, at, events)
				}
				at = next
			}
		}
		w.start()
		w.versions(dayfly.PhaseReady, "1", 3)
		w.update(append(chain("1"), service("extra", web, "1", nil))...)
		w.versions(dayfly.PhaseReady, "1", 4)
		w.stop()
		started := slices.DeleteFunc(w.events(), func(e string) bool { return !strings.HasPrefix(e, "starting ") })
		slices.Sort(started)
		if want := []string{"starting 1 of backend", "starting 1 of extra", "starting 1 of frontend", "starting 1 of migrate"}; !slices.Equal(started, want) {
			w.Errorf("with a restart in between these were told to start: %q", started)
		}
	})
}

func TestAServiceThatIsNeverBuiltIsNeverSaidToStart(t *testing.T) {
	onAll(t, func(w *world) {
		w.create(service("web", badBuild, "1", nil))
		w.until("failed", func() bool { return w.view().Phase == dayfly.PhaseFailed })
		w.stop()
		for _, e := range w.events() {
			if strings.HasPrefix(e, "starting") {
				w.Errorf("told %q: %q", e, w.events())
			}
		}
	})
}
