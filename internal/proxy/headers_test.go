package proxy

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestBaggageTellsTheEnvironment(t *testing.T) {
	for name, tc := range map[string]struct {
		lines []string
		want  string
	}{
		"none":                            {nil, ""},
		"alone":                           {[]string{"dayfly.env=temp-1"}, "temp-1"},
		"among others":                    {[]string{"user=ada,dayfly.env=temp-1,x=y"}, "temp-1"},
		"in another line":                 {[]string{"user=ada", "dayfly.env=temp-1"}, "temp-1"},
		"with white space":                {[]string{"user=ada , \tdayfly.env \t= temp-1 \t"}, "temp-1"},
		"with properties":                 {[]string{"dayfly.env=temp-1;ttl=3;flag"}, "temp-1"},
		"escaped":                         {[]string{"dayfly.env=temp%2D1"}, "temp-1"},
		"the first of two":                {[]string{"dayfly.env=a,dayfly.env=b"}, "a"},
		"the first that can be read":      {[]string{"dayfly.env=%zz,dayfly.env=b"}, "b"},
		"keys differ by case":             {[]string{"Dayfly.Env=a"}, ""},
		"a property is no member":         {[]string{"user=ada;dayfly.env=a"}, ""},
		"a value is no member":            {[]string{"user=dayfly.env=a"}, ""},
		"without a value":                 {[]string{"dayfly.env"}, ""},
		"other white space is no blank":   {[]string{"\u00a0dayfly.env=a"}, ""},
		"a value may have an equals sign": {[]string{"dayfly.env=a=b"}, "a=b"},
	} {
		if got := baggageEnv(tc.lines); got != tc.want {
			t.Errorf("%s: %q is for %q, want %q", name, tc.lines, got, tc.want)
		}
	}
}

func TestBaggageOfOthersStaysAsItIs(t *testing.T) {
	long := strings.Repeat("x", 4000)
	many := make([]string, 0, 300)
	for i := range 300 {
		many = append(many, fmt.Sprintf("k%d=v", i))
	}
	for name, tc := range map[string]struct{ lines, want []string }{
		"none":           {nil, []string{"dayfly.env=a"}},
		"values":         {[]string{"user=ada%20l;p=1;q,x=y"}, []string{"dayfly.env=a", "user=ada%20l;p=1;q", "x=y"}},
		"lines are one":  {[]string{"user=ada", "x=y"}, []string{"dayfly.env=a", "user=ada", "x=y"}},
		"ours goes":      {[]string{"x=y,dayfly.env=b;p=1, z=1 ,,dayfly.env=c"}, []string{"dayfly.env=a", "x=y", "z=1"}},
		"no whole goes":  {[]string{"a=" + long + ",b=" + long + ",c=1"}, []string{"dayfly.env=a", "a=" + long, "b=" + long, "c=1"}},
		"what is large":  {[]string{"a=" + long + ",b=" + long + long + ",c=1"}, []string{"dayfly.env=a", "a=" + long}},
		"more than many": {[]string{strings.Join(many, ",")}, append([]string{"dayfly.env=a"}, many[:maxMembers-1]...)},
	} {
		h := http.Header{}
		for _, l := range tc.lines {
			h.Add("Baggage", l)
		}
		setBaggage(h, "a")
		if got := h["Baggage"]; len(got) != 1 || got[0] != strings.Join(tc.want, ",") {
			t.Errorf("%s: %.200q, want %.200q", name, got, tc.want)
		}
	}
}

// others are what a list of header lines has besides ours.
func others(lines []string) (list []string) {
	for _, m := range strings.Split(strings.Join(lines, ","), ",") {
		m = strings.Trim(m, " \t")
		if key, _, _ := strings.Cut(m, "="); m != "" && strings.Trim(key, " \t") != "dayfly.env" {
			list = append(list, m)
		}
	}
	return list
}

func FuzzBaggageIsOursAndKeepsThatOfOthers(f *testing.F) {
	for _, s := range []string{
		"", "user=ada", "user=ada;p=1,dayfly.env=x", "dayfly.env=%2", " , ,=,;", "dayfly.env = b ; p", strings.Repeat("k=v,", 200), "a=\"b,c\"",
		strings.Repeat("x", 9000) + ",b=c",
	} {
		f.Add(s, "dayfly.env=y", "temp-1")
		f.Add("x=y", s, "a b,c;d=e\"ü%")
	}
	f.Fuzz(func(t *testing.T, one, two, env string) {
		if len(env) > 63 || !utf8.ValidString(env) { // names are labels; how others are written is part of it
			return
		}
		h := http.Header{"Baggage": {one, two}}
		before := others(h["Baggage"])
		setBaggage(h, env)
		got := h["Baggage"]
		if len(got) != 1 || baggageEnv(got) != env {
			t.Fatalf("%q is for %q, not %q", got, baggageEnv(got), env)
		}
		if !strings.HasPrefix(got[0], "dayfly.env=") || strings.Count(","+got[0], ",dayfly.env=") != 1 {
			t.Fatalf("ours is not the first and only one: %q", got)
		}
		after := others(got)
		whole := strings.Join(append([]string{"dayfly.env=" + strings.TrimPrefix(strings.SplitN(got[0], ",", 2)[0], "dayfly.env=")}, before...), ",")
		switch {
		case len(after) > len(before) || !slices.Equal(after, before[:len(after)]):
			t.Fatalf("others had %q and have %q", before, after)
		case len(got[0]) > 8192 || len(after) >= 180:
			t.Fatalf("it has %d bytes and %d members", len(got[0]), len(after)+1)
		case len(whole) <= 8192 && len(before) < 180 && len(after) != len(before):
			t.Fatalf("%d of %d members went for nothing", len(before)-len(after), len(before))
		}
		again := http.Header{"Baggage": {got[0]}}
		setBaggage(again, env)
		if again.Get("Baggage") != got[0] {
			t.Fatalf("passed on twice it is another: %q, %q", got[0], again.Get("Baggage"))
		}
	})
}

// form is a traceparent by the grammar of the specification.
var form = regexp.MustCompile(`^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-(?s:.*))?$`)

func FuzzATraceparentIsWhatTheSpecificationSays(f *testing.F) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, s := range []string{
		good, "", "00", good + "-", good + "-x", "01" + good[2:] + "-future", "cc" + good[2:], "ff" + good[2:], strings.ToUpper(good), good[:54], "01" + good[2:] + "x",
		"00-" + strings.Repeat("0", 32) + "-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-" + strings.Repeat("0", 16) + "-01", " " + good, strings.Replace(good, "-", "_", 1),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want := false
		if m := form.FindStringSubmatch(s); m != nil {
			want = m[1] != "ff" && (m[1] != "00" || m[4] == "") && strings.Trim(m[2], "0") != "" && strings.Trim(m[3], "0") != ""
		}
		if got := validTraceparent(s); got != want {
			t.Fatalf("%q: %v, want %v", s, got, want)
		}
		id, ok := traceOf(s)
		if ok != want || ok && fmt.Sprintf("%x", id) != s[3:35] {
			t.Fatalf("the trace of %q is %x, %v", s, id, ok)
		}
		if made := newTraceparent(); !validTraceparent(made) {
			t.Fatalf("ours is %q", made)
		}
	})
}

func TestTwoTraceparentsAreNone(t *testing.T) {
	one, other := newTraceparent(), newTraceparent()
	if got := traceparent(http.Header{"Traceparent": {one}}); got != one {
		t.Errorf("one is %q", got)
	}
	for _, list := range [][]string{nil, {one, other}, {one, one}, {"x"}} {
		if got := traceparent(http.Header{"Traceparent": list}); got != "" {
			t.Errorf("%q: %q", list, got)
		}
	}
}
