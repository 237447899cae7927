package spec

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/dayfly-dev/dayfly"
)

// Check reads a project file, a Procfile or an environment file and gives everything that
// is wrong with it. What a project file refers to is read from its folder.
func Check(file string) error {
	data, err := readFile(file)
	if err != nil {
		return dayfly.Invalid(dayfly.Problem{File: file, Message: "cannot be read: " + reason(err)})
	}
	if isEnvironmentFile(file, data) {
		_, err := ParseEnvironmentFiles(file, data, EnvironmentOptions{})
		return err
	}
	_, err = LoadDir(filepath.Dir(file), Options{File: filepath.Base(file)})
	var e *dayfly.Error
	if errors.As(err, &e) { // as the user named it
		for i := range e.Problems {
			if e.Problems[i].File != "" {
				e.Problems[i].File = filepath.Join(filepath.Dir(file), e.Problems[i].File)
			}
		}
	}
	return err
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f)
}

// isEnvironmentFile tells the two kinds of YAML files apart: only an environment file is a
// list, has services in one, or says of which project and branch it is.
func isEnvironmentFile(file string, data []byte) bool {
	if filepath.Base(file) == "Procfile" {
		return false
	}
	d, err := parseAny(file, data)
	if err != nil || d.root == nil {
		return false
	}
	if d.root.Kind == yaml.SequenceNode {
		return true
	}
	for _, key := range []string{"project", "base", "keep", "branch", "prefix", "header", "format", "data", "only"} {
		if d.value[key] != nil {
			return true
		}
	}
	_, isList := d.value["services"].([]any)
	return isList || d.value["services"] == nil && d.value["include"] == nil && d.value["name"] != nil && d.value["x-dayfly"] == nil
}

// IsProjectFile says whether a file describes a project, as a Compose file and a Procfile do,
// and no environment.
func IsProjectFile(file string, data []byte) bool {
	if filepath.Base(file) == "Procfile" {
		return true
	}
	d, err := parse(file, data)
	if err != nil || d.root == nil || isEnvironmentFile(file, data) {
		return false
	}
	_, services := d.value["services"].(map[string]any)
	return services || d.value["include"] != nil || d.value["x-dayfly"] != nil
}

// fieldPattern finds the path of a field in a message of compose-go.
var fieldPattern = regexp.MustCompile(`(?:services|networks|volumes|configs|secrets|include)(?:\.?\[[A-Za-z0-9_-]*\]|\.[A-Za-z0-9_-]+)+`)

// quoted finds the name of a key or service in such a message.
var quoted = regexp.MustCompile(`['"]([A-Za-z0-9._-]+)['"]`)

// wordy is what is no news in such a message.
var wordy = regexp.MustCompile(`^(?:(?:error while interpolating|''|decoding failed due to the following error\(s\)):?\s*)+`)

// translate gives the places of what compose-go found.
func (p *Project) translate(err error) []dayfly.Problem {
	var known *dayfly.Error
	if errors.As(err, &known) {
		if len(known.Problems) > 0 {
			return known.Problems
		}
		return []dayfly.Problem{{File: p.File, Message: known.Error()}}
	}
	var messages []string // a line without a field goes on with the one before
	for line := range strings.SplitSeq(err.Error(), "\n") {
		line = strings.ReplaceAll(strings.TrimSpace(line), p.dir+"/", "") // what is ours alone to know
		if n := len(messages); n > 0 && line != "" && (!fieldPattern.MatchString(line) || !fieldPattern.MatchString(messages[n-1])) {
			messages[n-1] += " " + line
		} else if line != "" {
			messages = append(messages, line)
		}
	}
	var list []dayfly.Problem
	for _, text := range messages {
		found := dayfly.Problem{File: p.File, Message: text}
		way := []string{"services"}
		if m := fieldPattern.FindStringIndex(text); m != nil {
			found.Field = strings.NewReplacer(".[]", "", "[", ".", "]", "").Replace(text[m[0]:m[1]])
			found.Message = text[:m[0]] + text[m[1]:]
			way = strings.Split(found.Field, ".")
		}
		found.Message = strings.TrimLeft(wordy.ReplaceAllString(strings.TrimSpace(found.Message), ""), ": ")
		for _, q := range quoted.FindAllStringSubmatch(found.Message, -1) {
			if p.knows(append(slices.Clone(way), q[1])) {
				way = append(way, q[1])
			}
		}
		d, way, _ := p.tree.find(way)
		if n := d.place(way...); n != nil {
			found.File, found.Line, found.Column = d.file, n.Line, n.Column
		}
		list = append(list, found)
	}
	return list
}

// knows says whether there is a value at a path.
func (p *Project) knows(way []string) bool {
	_, _, n := p.tree.find(way)
	return n == len(way)
}
