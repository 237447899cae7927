package dayfly

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

const (
	maxSlug     = 40 // bytes of a slug made from a branch
	maxLabel    = 63 // bytes of a DNS label
	cutLabel    = 56 // bytes that are kept of a label that is too long, before "-" and the suffix
	suffixBytes = 3  // 6 hexadecimal digits
)

// Slug makes a DNS label of at most 40 bytes from any text: lower case, everything but
// letters, digits and "-" becomes "-", none doubled or at the ends. One that was cut
// ends in 6 hexadecimal digits of a hash of the full text. A text without any letter or
// digit gives these digits alone.
func Slug(s string) string {
	slug := clean(s)
	switch {
	case s == "":
		return ""
	case slug == "":
		return suffix(s)
	case len(slug) > maxSlug:
		return strings.TrimRight(slug[:maxSlug-1-2*suffixBytes], "-") + "-" + suffix(s)
	}
	return slug
}

// WithSuffix gives a slug that differs from the slugs of other texts: slug, "-" and 6
// hexadecimal digits of a hash of full.
func WithSuffix(slug, full string) string {
	return strings.TrimRight(slug[:min(len(slug), cutLabel)], "-") + "-" + suffix(full)
}

func clean(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		} else if b.Len() > 0 && !strings.HasSuffix(b.String(), "-") {
			b.WriteByte('-')
		}
	}
	return strings.TrimRight(b.String(), "-")
}

func suffix(full string) string {
	sum := sha256.Sum256([]byte(full))
	return hex.EncodeToString(sum[:suffixBytes])
}

// label is a DNS label.
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ValidName says what is wrong with the name of an environment or a project: it has to
// be a DNS label, and names beginning with "dayfly" are ours.
func ValidName(s string) error {
	switch {
	case s == "":
		return errors.New("is missing")
	case len(s) > maxLabel:
		return fmt.Errorf("is longer than %d bytes", maxLabel)
	case !label.MatchString(s):
		return fmt.Errorf("%q is no DNS label: use lower-case letters, digits and -, such as %q", s, Slug(s))
	case strings.HasPrefix(s, "dayfly"):
		return fmt.Errorf("%q begins with dayfly, which is reserved", s)
	}
	return nil
}

var headerValue = regexp.MustCompile(`^[A-Za-z0-9._-]{1,63}$`)

// ValidHeader says what is wrong with the value by which a header names an environment.
func ValidHeader(s string) error {
	if !headerValue.MatchString(s) {
		return fmt.Errorf("%q has to be 1 to %d characters of letters, digits, ., _ and -", s, maxLabel)
	}
	return nil
}

// EnvironmentName makes the name of an environment from a pattern with the placeholders
// {project} and {branch}.
func EnvironmentName(pattern, project, branch string) string {
	return fit(strings.NewReplacer("{project}", project, "{branch}", Slug(branch)).Replace(pattern))
}

// ServiceHost makes the label of a service's own host from a pattern with the
// placeholders {service} and {env}. One over 63 bytes is cut to 56 and gets a suffix.
func ServiceHost(pattern, service, env string) string {
	return fit(strings.NewReplacer("{service}", service, "{env}", env).Replace(pattern))
}

func fit(name string) string {
	if len(name) <= maxLabel {
		return name
	}
	return WithSuffix(name, name)
}

// ValidateNamePattern says what is wrong with a pattern of EnvironmentName.
func ValidateNamePattern(pattern string) error {
	return validatePattern(pattern, "{branch}", "{project}")
}

// ValidateHostPattern says what is wrong with a pattern of ServiceHost.
func ValidateHostPattern(pattern string) error {
	if !strings.Contains(pattern, "{service}") {
		return fmt.Errorf("%q has no {service}: all services would have one host", pattern)
	}
	return validatePattern(pattern, "{env}", "{service}")
}

func validatePattern(pattern, needed, other string) error {
	if !strings.Contains(pattern, needed) {
		return fmt.Errorf("%q has no %s: all would have one name", pattern, needed)
	}
	if !label.MatchString(strings.NewReplacer(needed, "x", other, "x").Replace(pattern)) {
		return fmt.Errorf("%q makes no DNS label: use %s, %s, lower-case letters, digits and -", pattern, needed, other)
	}
	return nil
}
