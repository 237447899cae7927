package proxy

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// member is our key in W3C baggage.
const member = "dayfly.env"

const (
	// maxBaggage is how many bytes of baggage everybody passes on, maxMembers how many members: what is
	// larger many refuse as a whole, and ours with it.
	maxBaggage = 8192
	maxMembers = 180
	// blank is the white space of the specification.
	blank = " \t"
)

// baggageEnv finds the environment in baggage headers (https://www.w3.org/TR/baggage/).
func baggageEnv(headers []string) string {
	for _, h := range headers {
		for entry := range strings.SplitSeq(h, ",") {
			entry, _, _ = strings.Cut(entry, ";") // properties
			key, value, ok := strings.Cut(entry, "=")
			if !ok || strings.Trim(key, blank) != member {
				continue
			}
			if plain, err := url.PathUnescape(strings.Trim(value, blank)); err == nil {
				return plain
			}
		}
	}
	return ""
}

// setBaggage puts the environment into baggage, and keeps what others have there, as it is. Where that is
// too much, whole members go, from the end.
func setBaggage(h http.Header, env string) {
	line := member + "=" + url.PathEscape(env)
	lines := h.Values("Baggage")
	if len(lines) == 0 {
		h.Set("Baggage", line)
		return
	}
	var b strings.Builder
	b.WriteString(line)
	members := 1
	for _, line := range lines {
		for entry := range strings.SplitSeq(line, ",") {
			entry = strings.Trim(entry, blank)
			key, _, _ := strings.Cut(entry, "=")
			if entry == "" || strings.Trim(key, blank) == member {
				continue
			}
			if members == maxMembers || b.Len()+1+len(entry) > maxBaggage {
				h.Set("Baggage", b.String())
				return
			}
			members++
			b.WriteByte(',')
			b.WriteString(entry)
		}
	}
	h.Set("Baggage", b.String())
}

// traceparent gives the one of a request, "" where it has none, or one that means nothing: also more than
// one do.
func traceparent(h http.Header) string {
	if list := h["Traceparent"]; len(list) == 1 && validTraceparent(list[0]) {
		return list[0]
	}
	return ""
}

// validTraceparent checks a traceparent (https://www.w3.org/TR/trace-context/).
func validTraceparent(s string) bool {
	if len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' || s[:2] == "ff" {
		return false
	}
	if s[:2] == "00" && len(s) != 55 || len(s) > 55 && s[55] != '-' {
		return false
	}
	hexes := s[:2] + s[3:35] + s[36:52] + s[53:55]
	for i := range len(hexes) {
		if c := hexes[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return strings.Trim(s[3:35], "0") != "" && strings.Trim(s[36:52], "0") != ""
}

func newTraceparent() string {
	var id [24]byte
	rand.Read(id[:]) // never fails, see crypto/rand
	return "00-" + hex.EncodeToString(id[:16]) + "-" + hex.EncodeToString(id[16:]) + "-01"
}

func newRequestID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails, see crypto/rand
	return hex.EncodeToString(id[:])
}

// buffers is a pool of the buffers that bodies are copied through.
var buffers = pool{sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}} //nolint:gochecknoglobals // a cache without state

type pool struct{ sync.Pool }

func (p *pool) Get() []byte  { return *p.Pool.Get().(*[]byte) }
func (p *pool) Put(b []byte) { p.Pool.Put(&b) }
