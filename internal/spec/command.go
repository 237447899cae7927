package spec

import (
	"fmt"
	"strings"

	"github.com/dayfly-dev/dayfly"
)

// SplitCommand splits a command as a shell splits words; no shell ever runs it. $NAME,
// ${NAME} and $$ stay for Expand; within single quotes and behind a backslash a dollar sign is
// itself and becomes "$$". What only a shell could do is an error that says how to ask
// for one.
func SplitCommand(s string) (dayfly.Command, error) {
	var words dayfly.Command
	var word strings.Builder
	inWord := false
	shell := func(what string) (dayfly.Command, error) {
		return nil, fmt.Errorf("%s needs a shell, and none is run: write [\"sh\", \"-c\", %q] if you want one", what, s)
	}
	end := func() {
		if inWord {
			words = append(words, word.String())
			word.Reset()
			inWord = false
		}
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '\n':
			end()
			if len(words) > 0 && strings.TrimSpace(s[i:]) != "" {
				return shell("a second line")
			}
		case ' ', '\t', '\r':
			end()
		case '\'':
			j := strings.IndexByte(s[i+1:], '\'')
			if j < 0 {
				return nil, fmt.Errorf("a single quote is not closed in %q", s)
			}
			word.WriteString(strings.ReplaceAll(s[i+1:i+1+j], "$", "$$"))
			inWord = true
			i += j + 1
		case '"':
			inWord = true
			closed := false
			for i++; i < len(s); i++ {
				if s[i] == '"' {
					closed = true
					break
				}
				switch {
				case s[i] == '\\' && i+1 < len(s) && strings.IndexByte("\"\\$`\n", s[i+1]) >= 0:
					i++
					if s[i] == '$' {
						word.WriteByte('$')
					}
					if s[i] != '\n' {
						word.WriteByte(s[i])
					}
				case onlyShell(s[i:]) != "":
					return shell(onlyShell(s[i:]))
				default:
					text, n := next(s[i:])
					word.WriteString(text)
					i += n - 1
				}
			}
			if !closed {
				return nil, fmt.Errorf("a double quote is not closed in %q", s)
			}
		case '\\':
			if i+1 == len(s) {
				return nil, fmt.Errorf("a backslash ends %q", s)
			}
			i++
			if s[i] == '\n' {
				continue
			}
			if s[i] == '$' {
				word.WriteByte('$')
			}
			word.WriteByte(s[i])
			inWord = true
		case '|', '&', ';', '<', '>', '(', ')':
			return shell("an unquoted " + string(c))
		default:
			if what := onlyShell(s[i:]); what != "" {
				return shell(what)
			}
			if name := word.String(); c == '=' && len(words) == 0 && name != "" && nameLen(name) == len(name) {
				return shell("a variable before the command")
			}
			text, n := next(s[i:])
			word.WriteString(text)
			i += n - 1
			inWord = true
		}
	}
	end()
	return words, nil
}

// next gives what s begins with for a word, and how long it is: a byte, or "$$". A dollar sign
// that no name follows is itself.
func next(s string) (text string, n int) {
	switch {
	case strings.HasPrefix(s, "$$"):
		return "$$", 2
	case s[0] == '$' && nameLen(s[1:]) == 0 && !strings.HasPrefix(s, "${"):
		return "$$", 1
	}
	return s[:1], 1
}

// onlyShell says what s begins with that only a shell could do.
func onlyShell(s string) string {
	switch {
	case s[0] == '`', strings.HasPrefix(s, "$("):
		return "a command in a command"
	case strings.HasPrefix(s, "${"):
		if name, _, closed := strings.Cut(s[2:], "}"); !closed || name == "" || nameLen(name) != len(name) {
			return "${ with more than a name"
		}
	}
	return ""
}

// Expand puts variables into the arguments of a command, each inside of its argument.
// Unknown ones are empty, "$$" is a dollar sign.
func Expand(c dayfly.Command, vars map[string]string) []string {
	args := make([]string, len(c))
	for i, arg := range c {
		args[i] = expand(arg, vars)
	}
	return args
}

func expand(s string, vars map[string]string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		rest := s[i+1:]
		switch rest[0] {
		case '$':
			b.WriteByte('$')
			i++
		case '{':
			name, _, closed := strings.Cut(rest[1:], "}")
			if !closed || nameLen(name) != len(name) || name == "" {
				b.WriteByte('$')
				continue
			}
			b.WriteString(vars[name])
			i += len(name) + 2
		default:
			n := nameLen(rest)
			if n == 0 {
				b.WriteByte('$')
				continue
			}
			b.WriteString(vars[rest[:n]])
			i += n
		}
	}
	return b.String()
}

// Mentions says whether a command uses a variable.
func Mentions(c dayfly.Command, name string) bool {
	const probe = "\x00"
	for _, arg := range Expand(c, map[string]string{name: probe}) {
		if strings.Contains(arg, probe) {
			return true
		}
	}
	return false
}

// nameLen is the length of the variable name that s begins with.
func nameLen(s string) int {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return i
		}
	}
	return len(s)
}
