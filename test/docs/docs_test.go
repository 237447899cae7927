// Package docs_test holds the reference to what the program is: whatever can be
// called, given or answered stands in docs/, and nothing else does.
package docs_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// root is the repository.
const root = "../.."

// page is a Markdown file.
type page struct {
	text     string
	sections []section
}

// section is a heading and what stands below it, up to the next heading of any level.
type section struct {
	level         int
	title, anchor string
	text          string
}

func readPage(t *testing.T, name string) page {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return parsePage(string(b))
}

func parsePage(text string) page {
	p := page{text: text}
	var body strings.Builder
	end := func() {
		if n := len(p.sections); n > 0 {
			p.sections[n-1].text = body.String()
		}
		body.Reset()
	}
	seen := map[string]bool{}
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		marks := len(line) - len(strings.TrimLeft(line, "#"))
		if fenced || marks == 0 || line[marks] != ' ' {
			body.WriteString(line)
			continue
		}
		end()
		title := strings.TrimSpace(line[marks:])
		p.sections = append(p.sections, section{level: marks, title: title, anchor: unique(slug(title), seen)})
	}
	end()
	return p
}

// section gives the section with this title and those below it.
func (p page) section(title string) (string, bool) {
	var b strings.Builder
	level := 0
	for _, s := range p.sections {
		switch {
		case level == 0 && s.title == title:
			level = s.level
			b.WriteString(s.text)
		case level > 0 && s.level > level:
			b.WriteString(s.text)
		case level > 0:
			return b.String(), true
		}
	}
	return b.String(), level > 0
}

var (
	noSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	inline = regexp.MustCompile("`[^`\n]*`")
)

// slug is the anchor that GitHub gives a heading.
func slug(title string) string {
	return strings.ReplaceAll(noSlug.ReplaceAllString(strings.ToLower(title), ""), " ", "-")
}

func unique(anchor string, seen map[string]bool) string {
	candidate := anchor
	for i := 1; seen[candidate]; i++ {
		candidate = anchor + "-" + strconv.Itoa(i)
	}
	seen[candidate] = true
	return candidate
}

// row gives the row of a table whose first cell names something in code.
func row(text, name string) (string, bool) {
	code := regexp.MustCompile("`" + regexp.QuoteMeta(name) + "[` ]")
	for line := range strings.Lines(text) {
		if cells := strings.SplitN(line, "|", 3); strings.HasPrefix(line, "|") && len(cells) == 3 && code.MatchString(cells[1]) {
			return line, true
		}
	}
	return "", false
}

// mentions says whether a text names something as code.
func mentions(text, name string) bool {
	return regexp.MustCompile("`" + regexp.QuoteMeta(name) + "[` ]").MatchString(text)
}

// blocks gives the fenced blocks of a text by their language, "" = none.
func blocks(text string) map[string][]string {
	all := map[string][]string{}
	var block strings.Builder
	language, fenced := "", false
	for line := range strings.Lines(text) {
		switch fence := strings.HasPrefix(line, "```"); {
		case fence && fenced:
			all[language] = append(all[language], block.String())
			block.Reset()
			fenced = false
		case fence:
			language, fenced = strings.TrimSpace(strings.TrimPrefix(line, "```")), true
		case fenced:
			block.WriteString(line)
		}
	}
	return all
}

// markdown gives the pages whose links have to lead somewhere, relative to the root.
func markdown(t *testing.T) []string {
	t.Helper()
	names := []string{"README.md", "CONTRIBUTING.md"}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			name, relErr := filepath.Rel(root, path)
			names, err = append(names, name), relErr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// prose is a page without its fenced blocks and inline code.
func prose(text string) string {
	var b bytes.Buffer
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
			continue
		}
		if !fenced {
			b.WriteString(inline.ReplaceAllString(line, "code"))
		}
	}
	return b.String()
}
