package dayfly_test

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
)

func TestTheLastPatternThatFitsABranchDecides(t *testing.T) {
	for _, c := range []struct {
		patterns string // separated by spaces
		yes, no  string
	}{
		{"", "", "main a/b"},
		{"main", "main", "mai main2 Main xmain m"},
		{"*", "main a/b/c ü *", ""},
		{"* !dependabot/*", "main dependabot x/dependabot/y", "dependabot/go dependabot/go/x"},
		{"!dependabot/* *", "main dependabot/go", ""},
		{"* !release/* release/keep", "main release/keep", "release/1 release/keep2"},
		{"!main", "", "main x"},
		{"feature/*", "feature/ feature/a feature/a/b", "feature features/a"},
		{"v?", "v1 vü v/", "v v12"},
		{"*-?", "a-b -b a-b-c a/b-ü", "a- a-bc"},
		{"?*?", "ab abc üü", "a ü"},
		{"a*b*c", "abc a1b2c abcbc aabbcc", "ab acb abcd xabc"},
		{"**", "a a/b", ""},
		{"a**b", "ab axb", "a b"},
		{"[ab] \\* .", "[ab] \\ \\x .", "a b *"},
		{"!!x x !!y", "x", "!x !y y"},
		{"a !a a !a a", "a", "b"},
		{"fix/*/ui", "fix/a/ui fix/a/b/ui fix//ui", "fix/ui fix/a/uix"},
	} {
		p := dayfly.BranchPatterns(strings.Fields(c.patterns))
		for b := range strings.FieldsSeq(c.yes) {
			if !p.Match(b) {
				t.Errorf("%q do not match %q", p, b)
			}
		}
		for b := range strings.FieldsSeq(c.no) {
			if p.Match(b) {
				t.Errorf("%q match %q", p, b)
			}
		}
	}
}

// slowly is the plain meaning of patterns, by regular expressions.
func slowly(p dayfly.BranchPatterns, branch string) bool {
	result := false
	for _, s := range p {
		glob, without := strings.CutPrefix(s, "!")
		if regexp.MustCompile(`\A(?s:` + strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(glob)) + `)\z`).MatchString(branch) {
			result = !without
		}
	}
	return result
}

func TestPatternsMeanWhatTheirRegularExpressionsMean(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := dayfly.BranchPatterns(rapid.SliceOfN(rapid.StringOfN(rapid.SampledFrom([]rune("ab/ü*?*!")), 0, 8, -1), 0, 4).Draw(t, "patterns"))
		branch := rapid.StringOfN(rapid.SampledFrom([]rune("ab/ü!")), 0, 10, -1).Draw(t, "branch")
		if got, want := p.Match(branch), slowly(p, branch); got != want {
			t.Fatalf("%q, %q: %v, want %v", p, branch, got, want)
		}
	})
}

// A matcher that tries each star again for each star before it would not end here.
func TestAPatternWithManyStarsIsDecided(t *testing.T) {
	p := dayfly.BranchPatterns{strings.Repeat("a*", 500) + "b"}
	if branch := strings.Repeat("a", 5000); p.Match(branch) || !p.Match(branch+"b") {
		t.Error("decided wrongly")
	}
}

func TestAPatternThatCanNeverMeanABranchIsRefused(t *testing.T) {
	for in, want := range map[string]string{
		"": "is empty", "!": "says nothing", " ": "has a space", "a b": "has a space", "a\tb": "has a space", "a\n": "has a space", "a\u00a0": "has a space",
		"a\x00": "control character", "\x7f": "control character", "a\u0085b": "control character", "\xff": "no UTF-8",
	} {
		if err := dayfly.ValidBranchPattern(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
	for _, in := range []string{"*", "!*", "!!", "ü/?", "[x]", "-"} {
		if err := dayfly.ValidBranchPattern(in); err != nil {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func FuzzBranchPatterns(f *testing.F) {
	for _, s := range []string{"*\n!dependabot/*\nmain", "a*b?c\naxbyc", "?\nü", "!\n!", "\n", "*\xc3\n\xc3\xbc"} {
		patterns, branch, _ := strings.Cut(s, "\n")
		f.Add(patterns, branch)
	}
	f.Fuzz(func(t *testing.T, patterns, branch string) {
		p := dayfly.BranchPatterns(strings.Fields(patterns))
		got := p.Match(branch)
		if utf8.ValidString(patterns) && utf8.ValidString(branch) && len(patterns) < 500 {
			if want := slowly(p, branch); got != want {
				t.Fatalf("%q, %q: %v, want %v", p, branch, got, want)
			}
		}
		if !append(p, "*").Match(branch) || append(p, "!*").Match(branch) {
			t.Fatalf("%q: the last pattern does not decide", branch)
		}
	})
}
