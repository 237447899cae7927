package dayfly_test

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dayfly-dev/dayfly"
)

// label is written by hand here, so that a mistake in the code is not repeated.
var label = regexp.MustCompile(`\A[a-z0-9]([a-z0-9-]*[a-z0-9])?\z`)

var sixHex = regexp.MustCompile(`-[0-9a-f]{6}\z`)

func isLabel(s string) bool { return len(s) <= 63 && label.MatchString(s) }

func TestASlugIsADNSLabelThatResemblesItsText(t *testing.T) {
	for in, want := range map[string]string{
		"":                                  "",
		"main":                              "main",
		"Feature/ABC_123":                   "feature-abc-123",
		"--a--b--":                          "a-b",
		"a...b///c":                         "a-b-c",
		"feature/größe":                     "feature-gr-e",
		"/":                                 "8a5eda",
		"日本":                                "cf2abf",
		"--":                                "d8156b",
		"; rm -rf $(HOME)":                  "rm-rf-home",
		"../../etc/passwd":                  "etc-passwd",
		"a\x00b\nc":                         "a-b-c",
		"\xff\xfe":                          "b3d510",
		"K":                                 "k",
		strings.Repeat("a", 40):             strings.Repeat("a", 40),
		strings.Repeat("a", 41):             strings.Repeat("a", 33) + "-c0f8bd",
		strings.Repeat("ab-", 20):           "ab-ab-ab-ab-ab-ab-ab-ab-ab-ab-ab-11b005",
		strings.Repeat("-", 50):             "98285d",
		strings.Repeat("ü", 50):             "a8edb6",
		"a" + strings.Repeat("/", 50) + "b": "a-b",
	} {
		if got := dayfly.Slug(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestASlugIsAlwaysALabelTheSameAndDistinctWhereItWasCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.StringN(1, 200, -1), rapid.StringMatching(`[a-zA-Z0-9/_.-]{1,120}`), rapid.StringMatching(`[a-z]{38,44}`)).Draw(t, "text")
		slug := dayfly.Slug(text)
		checkSlug(t, text, slug)
		if len(slug) == 40 && strings.Trim(strings.ToLower(text), "abcdefghijklmnopqrstuvwxyz0123456789") == "" && len(text) > 40 {
			if other := text + "x"; dayfly.Slug(other) == slug {
				t.Fatalf("%q and %q have the slug %q", text, other, slug)
			}
		}
	})
}

type failer interface{ Fatalf(string, ...any) }

func checkSlug(t failer, text, slug string) {
	switch {
	case !isLabel(slug) || len(slug) > 40 || strings.Contains(slug, "--"):
		t.Fatalf("%q: %q", text, slug)
	case dayfly.Slug(text) != slug:
		t.Fatalf("%q: once %q, then %q", text, slug, dayfly.Slug(text))
	case dayfly.Slug(slug) != slug:
		t.Fatalf("%q is changed to %q", slug, dayfly.Slug(slug))
	}
	plain := strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(text), "-"), "-")
	switch {
	case len(plain) > 40 && !sixHex.MatchString(slug):
		t.Fatalf("%q was cut to %q without a suffix", text, slug)
	case plain != "" && len(plain) <= 40 && slug != plain:
		t.Fatalf("%q: %q, want %q", text, slug, plain)
	}
}

func FuzzSlug(f *testing.F) {
	for _, s := range []string{"main", "Feature/X", "ü", "", "-", strings.Repeat("a-", 40), "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if text == "" {
			return
		}
		checkSlug(t, text, dayfly.Slug(text))
	})
}

func TestANameIsADNSLabelThatIsNotOurs(t *testing.T) {
	for in, want := range map[string]string{
		"a": "", "0": "", "shop-main": "", "a--b": "", "xdayfly": "", strings.Repeat("a", 63): "",
		"":                      "is missing",
		strings.Repeat("a", 64): "is longer than 63 bytes",
		"Shop":                  `"Shop" is no DNS label: use lower-case letters, digits and -, such as "shop"`,
		"a_b":                   `"a_b" is no DNS label: use lower-case letters, digits and -, such as "a-b"`,
		"-a":                    `"-a" is no DNS label: use lower-case letters, digits and -, such as "a"`,
		"a-":                    `"a-" is no DNS label: use lower-case letters, digits and -, such as "a"`,
		"a.b":                   `"a.b" is no DNS label: use lower-case letters, digits and -, such as "a-b"`,
		"a\n":                   `"a\n" is no DNS label: use lower-case letters, digits and -, such as "a"`,
		"dayfly":                `"dayfly" begins with dayfly, which is reserved`,
		"dayfly-x":              `"dayfly-x" begins with dayfly, which is reserved`,
	} {
		got := ""
		if err := dayfly.ValidName(in); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestANameIsValidExactlyWhenItIsALabel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-c0-1A_.-]{0,6}`), rapid.StringMatching(`[a-z-]{60,66}`)).Draw(t, "name")
		if valid := dayfly.ValidName(s) == nil; valid != (isLabel(s) && !strings.HasPrefix(s, "dayfly")) {
			t.Fatalf("%q: %v", s, dayfly.ValidName(s))
		}
	})
}

func TestNamesAndHostsFollowTheirPatterns(t *testing.T) {
	long := strings.Repeat("a", 60)
	for _, c := range []struct{ got, want string }{
		{dayfly.EnvironmentName("{project}-{branch}", "shop", "Feature/X"), "shop-feature-x"},
		{dayfly.EnvironmentName("{branch}.{project}", "shop", "main"), "main.shop"},
		{dayfly.EnvironmentName("pr-{branch}", "shop", "{project}"), "pr-project"},
		{dayfly.EnvironmentName("{project}-{branch}", long, "main"), strings.Repeat("a", 56) + "-8bf5df"},
		{dayfly.ServiceHost("{service}-{env}", "web", "shop-main"), "web-shop-main"},
		{dayfly.ServiceHost("{env}-{service}", "web", "shop-main"), "shop-main-web"},
		{dayfly.ServiceHost("{env}{service}", "web", "shop"), "shopweb"},
		{dayfly.ServiceHost("{service}-{env}", "a", strings.Repeat("b", 61)), "a-" + strings.Repeat("b", 61)},
		{dayfly.ServiceHost("{service}-{env}", "ab", strings.Repeat("b", 61)), "ab-" + strings.Repeat("b", 53) + "-3bc7ad"},
		{dayfly.WithSuffix("shop-main", "shop/main"), "shop-main-876fc1"},
		{dayfly.WithSuffix("shop-main", "shop/Main"), "shop-main-dcbc62"},
		{dayfly.WithSuffix(long, "x"), strings.Repeat("a", 56) + "-2d7116"},
		{dayfly.WithSuffix(strings.Repeat("a", 55)+"-b", "x"), strings.Repeat("a", 55) + "-2d7116"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

func TestNamesAndHostsAreAlwaysLabelsAndDistinct(t *testing.T) {
	name := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`)
	rapid.Check(t, func(t *rapid.T) {
		env := rapid.SampledFrom([]string{"{project}-{branch}", "{branch}", "x{branch}-{project}", "{project}{branch}{branch}"}).Draw(t, "names")
		host := rapid.SampledFrom([]string{"{service}-{env}", "{env}-{service}", "{env}{service}", "a-{env}-{service}-b"}).Draw(t, "hosts")
		if err := dayfly.ValidateNamePattern(env); err != nil {
			t.Fatal(err)
		}
		if err := dayfly.ValidateHostPattern(host); err != nil {
			t.Fatal(err)
		}
		project, service := name.Draw(t, "project"), name.Draw(t, "service")
		branch := rapid.StringN(1, 100, -1).Draw(t, "branch")
		made := dayfly.EnvironmentName(env, project, branch)
		full := dayfly.ServiceHost(host, service, made)
		suffixed := dayfly.WithSuffix(made, project+"/"+branch)
		for what, s := range map[string]string{"name": made, "host": full, "suffixed": suffixed} {
			if !isLabel(s) {
				t.Fatalf("%s %q of %q %q %q", what, s, project, branch, service)
			}
		}
		if whole := strings.NewReplacer("{env}", made, "{service}", service).Replace(host); len(whole) > 63 {
			if !sixHex.MatchString(full) {
				t.Fatalf("%q was cut to %q without a suffix", whole, full)
			}
			if other := service[:len(service)-1] + "0z"; dayfly.ServiceHost(host, other, made) == full {
				t.Fatalf("%s and %s have one host: %s", service, other, full)
			}
		} else if full != whole {
			t.Fatalf("%q, want %q", full, whole)
		}
		if again := dayfly.EnvironmentName(env, project, branch); again != made || !sixHex.MatchString(suffixed) {
			t.Fatalf("%q, then %q; %q", made, again, suffixed)
		}
	})
}

func TestAPatternHasToTellNamesApartAndMakeLabels(t *testing.T) {
	for pattern, want := range map[string]string{
		"{project}-{branch}": "", "{branch}": "", "pr-{branch}": "",
		"{project}":                          `"{project}" has no {branch}: all would have one name`,
		"":                                   `"" has no {branch}: all would have one name`,
		"{branch}.dev":                       `"{branch}.dev" makes no DNS label: use {branch}, {project}, lower-case letters, digits and -`,
		"-{branch}":                          `"-{branch}" makes no DNS label: use {branch}, {project}, lower-case letters, digits and -`,
		"{branch}-{user}":                    `"{branch}-{user}" makes no DNS label: use {branch}, {project}, lower-case letters, digits and -`,
		"{branch}" + strings.Repeat("a", 63): `"{branch}` + strings.Repeat("a", 63) + `" makes no DNS label: use {branch}, {project}, lower-case letters, digits and -`,
	} {
		if got := text(dayfly.ValidateNamePattern(pattern)); got != want {
			t.Errorf("%q: %q, want %q", pattern, got, want)
		}
	}
	for pattern, want := range map[string]string{
		"{service}-{env}": "", "{env}{service}": "",
		"{env}":            `"{env}" has no {service}: all services would have one host`,
		"{service}":        `"{service}" has no {env}: all would have one name`,
		"{service}.{env}":  `"{service}.{env}" makes no DNS label: use {env}, {service}, lower-case letters, digits and -`,
		"{service}-{env}-": `"{service}-{env}-" makes no DNS label: use {env}, {service}, lower-case letters, digits and -`,
	} {
		if got := text(dayfly.ValidateHostPattern(pattern)); got != want {
			t.Errorf("%q: %q, want %q", pattern, got, want)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestTheValueOfAHeaderIsAWordOfSafeCharacters(t *testing.T) {
	for _, s := range []string{"a", "Temp_1.a-b", "0", ".", strings.Repeat("x", 63)} {
		if err := dayfly.ValidHeader(s); err != nil {
			t.Error(err)
		}
	}
	for _, s := range []string{"", "a b", "a\n", "ü", "a/b", "a,b", "a=b", "a;b", "\x00", strings.Repeat("x", 64)} {
		if dayfly.ValidHeader(s) == nil {
			t.Errorf("%q is taken", s)
		}
	}
}
