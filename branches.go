package dayfly

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// BranchPatterns say which branches become environments by themselves. "*" stands for any
// text, with "/" too, "?" for one character, everything else for itself; "!" in front
// takes away.
type BranchPatterns []string

// Match says whether a branch is meant. The last pattern that fits decides; without any
// that fits, it is not.
func (p BranchPatterns) Match(branch string) bool {
	for i := len(p) - 1; i >= 0; i-- {
		glob, without := strings.CutPrefix(p[i], "!")
		if fits(glob, branch) {
			return !without
		}
	}
	return false
}

// ValidBranchPattern says what is wrong with one of the patterns.
func ValidBranchPattern(pattern string) error {
	switch {
	case pattern == "":
		return errors.New("is empty: * stands for all branches")
	case pattern == "!":
		return errors.New("says nothing: the ! needs a pattern behind it")
	case !utf8.ValidString(pattern):
		return fmt.Errorf("%q is no UTF-8", pattern)
	case strings.ContainsFunc(pattern, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return fmt.Errorf("%q has a space or a control character, which no branch has", pattern)
	}
	return nil
}

// fits matches one pattern. Only the last "*" is ever tried again: what stands before it has
// been matched as early as possible, so a later match could not leave more for the rest.
// The time is therefore at most the product of both lengths.
func fits(glob, s string) bool {
	g, at := 0, 0
	star, from := -1, 0 // behind the last "*", and where the text that it stands for ends
	for at < len(s) {
		if g < len(glob) {
			switch _, size := utf8.DecodeRuneInString(s[at:]); {
			case glob[g] == '*':
				g++
				star, from = g, at
				continue
			case glob[g] == '?':
				g, at = g+1, at+size
				continue
			case strings.HasPrefix(glob[g:], s[at:at+size]):
				g, at = g+size, at+size
				continue
			}
		}
		if star < 0 {
			return false
		}
		_, size := utf8.DecodeRuneInString(s[from:])
		from += size
		g, at = star, from
	}
	return strings.Trim(glob[g:], "*") == ""
}
