package route

import "strings"

// maxName is the length of the longest host name in DNS, without trailing dot.
const maxName = 253

// hostname gives the part of a Host header that names the host: without port,
// brackets and one trailing dot. What is no host with an optional port gives "".
func hostname(host string) string {
	if strings.HasPrefix(host, "[") { // an IPv6 address
		name, port, found := strings.Cut(host[1:], "]")
		if !found || port != "" && !isPort(port) {
			return ""
		}
		return name
	}
	if i := strings.IndexByte(host, ':'); i >= 0 {
		if !isPort(host[i:]) {
			return ""
		}
		host = host[:i]
	}
	return strings.TrimSuffix(host, ".")
}

// isPort says whether s is a colon and digits, of which there may be none.
func isPort(s string) bool {
	if s[0] != ':' {
		return false
	}
	for i := 1; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// fold writes the lower case of s to buf and gives that; nil when s is longer
// than any name.
func fold(buf *[maxName]byte, s string) []byte {
	if len(s) > maxName {
		return nil
	}
	for i := range len(s) {
		c := s[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		buf[i] = c
	}
	return buf[:len(s)]
}

// equalFold says whether a and b differ in nothing but the case of ASCII
// letters. Unlike in strings.EqualFold the Kelvin sign is no k.
func equalFold(lower, s string) bool {
	var buf [maxName]byte
	return len(lower) == len(s) && lower == string(fold(&buf, s))
}

// lower gives the lower case of ASCII letters, the form of all keys.
func lower(s string) string {
	var buf [maxName]byte
	b := fold(&buf, s)
	if b == nil || string(b) == s {
		return s
	}
	return string(b)
}

// internalName splits SERVICE.internal and SERVICE.ENV.internal; environment is
// "" in the first. host is a result of hostname.
func (t *Table) internalName(host string) (service, environment string, ok bool) {
	for _, suffix := range t.suffixes {
		at := len(host) - len(suffix)
		if at <= 0 || !equalFold(suffix, host[at:]) {
			continue
		}
		service, environment, dotted := strings.Cut(host[:at], ".")
		if service == "" || dotted && (environment == "" || strings.Contains(environment, ".")) {
			continue
		}
		return service, environment, true
	}
	return "", "", false
}
