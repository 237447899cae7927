package dayfly_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
)

func TestADurationIsReadInTheUnitsOfPeople(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"0s": 0, "500ms": 500 * time.Millisecond, "90s": 90 * time.Second, "5m": 5 * time.Minute, "36h": 36 * time.Hour,
		"5d": 120 * time.Hour, "2w": 336 * time.Hour, "1d12h": 36 * time.Hour, "1w2d3h4m5s6ms": (9*24+3)*time.Hour + 4*time.Minute + 5*time.Second + 6*time.Millisecond,
		"1.5h": 90 * time.Minute, ".5d": 12 * time.Hour, "1m1m": 2 * time.Minute, "10000d1ms": 240000*time.Hour + time.Millisecond,
		"forever": math.MaxInt64,
	} {
		if got, err := dayfly.ParseDuration(in); err != nil || time.Duration(got) != want {
			t.Errorf("%q: %v, %v, want %v", in, time.Duration(got), err, want)
		}
	}
}

func TestWhatIsNoDurationIsRefused(t *testing.T) {
	for _, in := range []string{"", " ", "5", "d", "-5d", "5 d", "5D", "5y", "5d ", "1.2.3h", "5dd", "1e3s", "Forever", "5d6", "٣d", "+1h", "1us", "NaNh", "Infs"} {
		_, err := dayfly.ParseDuration(in)
		if err == nil {
			t.Errorf("%q is taken", in)
			continue
		}
		var d dayfly.Duration
		if err := json.Unmarshal([]byte(`"`+in+`"`), &d); err == nil {
			t.Errorf("%q is taken from JSON", in)
		}
	}
	if _, err := dayfly.ParseDuration("5"); text(err) != `"5" is no duration: write a number and s, m, h, d or w, such as 36h or 5d` {
		t.Error(err)
	}
	for _, in := range []string{"293000d", "15000w150000h", "99999999999999999999999w", "106751d24h"} {
		if _, err := dayfly.ParseDuration(in); text(err) != `"`+in+`" is longer than 292 years: write forever` {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestADurationIsWrittenInItsShortestForm(t *testing.T) {
	for in, want := range map[time.Duration]string{
		0: "0s", -time.Hour: "0s", time.Microsecond: "0s", time.Millisecond: "1ms", 90 * time.Second: "1m30s", time.Hour: "1h",
		36 * time.Hour: "1d12h", 120 * time.Hour: "5d", 168 * time.Hour: "1w", 192 * time.Hour: "8d", 336 * time.Hour: "2w",
		time.Second + time.Microsecond: "1s", math.MaxInt64: "forever",
	} {
		if got := dayfly.Duration(in).String(); got != want {
			t.Errorf("%v: %q, want %q", in, got, want)
		}
	}
}

func TestADurationReadsBackAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := dayfly.Duration(rapid.Int64Range(0, math.MaxInt64/int64(time.Millisecond)).Draw(t, "ms")) * dayfly.Duration(time.Millisecond)
		if got, err := dayfly.ParseDuration(want.String()); err != nil || got != want {
			t.Fatalf("%s: %d, %v, want %d", want, got, err, want)
		}
		data, err := json.Marshal(map[string]dayfly.Duration{"d": want})
		if err != nil {
			t.Fatal(err)
		}
		var back map[string]dayfly.Duration
		if err := json.Unmarshal(data, &back); err != nil || back["d"] != want {
			t.Fatalf("%s: %v, %v", data, back, err)
		}
	})
}
