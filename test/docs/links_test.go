package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

func TestRelativeLinksLeadToFilesAndHeadingsThatExist(t *testing.T) {
	checked := 0
	for _, name := range markdown(t) {
		for _, m := range link.FindAllStringSubmatch(prose(readPage(t, name).text), -1) {
			target := m[1]
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			checked++
			if why := follow(t, name, target); why != "" {
				t.Errorf("%s: the link %s leads nowhere: %s", name, target, why)
			}
		}
	}
	if checked == 0 {
		t.Error("no link was found: the pages are not read as they should")
	}
}

// follow says why a link of a page leads nowhere, "" = it leads somewhere.
func follow(t *testing.T, from, target string) string {
	t.Helper()
	file, anchor, _ := strings.Cut(target, "#")
	to := from
	if file != "" {
		to = filepath.Join(filepath.Dir(from), file)
	}
	if _, err := os.Stat(filepath.Join(root, to)); err != nil {
		return "there is no " + to
	}
	if anchor == "" {
		return ""
	}
	for _, s := range readPage(t, to).sections {
		if s.anchor == anchor {
			return ""
		}
	}
	return to + " has no heading #" + anchor
}

func TestEveryPageOfTheReferenceIsListedInIt(t *testing.T) {
	list := readPage(t, "docs/README.md").text
	for _, name := range markdown(t) {
		file := filepath.Base(name)
		if filepath.Dir(name) == "docs" && file != "README.md" && !strings.Contains(list, "]("+file+")") {
			t.Errorf("docs/README.md has no link to %s", file)
		}
	}
}

func TestAnchorsAreThoseOfGitHub(t *testing.T) {
	p := parsePage("# GET /v1/environments/{env}/logs\n## `a_b` and c-d\n## Twice\n```\n# no heading\n```\n## Twice\n")
	want := []string{"get-v1environmentsenvlogs", "a_b-and-c-d", "twice", "twice-1"}
	if len(p.sections) != len(want) {
		t.Fatalf("%d headings were found, not %d", len(p.sections), len(want))
	}
	for i, s := range p.sections {
		if s.anchor != want[i] {
			t.Errorf("the anchor of %q is %q, not %q", s.title, s.anchor, want[i])
		}
	}
}
