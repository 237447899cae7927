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

// baggageEnv finds the environment in baggage headers (https://www.w3.org/TR/baggage/).
func baggageEnv(headers []string) string {
	for _, h := range headers {
		for entry := range strings.SplitSeq(h, ",") {
			entry, _, _ = strings.Cut(entry, ";") // properties
			key, value, ok := strings.Cut(entry, "=")
			if !ok || strings.TrimSpace(key) != member {
				continue
			}
			if plain, err := url.PathUnescape(strings.TrimSpace(value)); err == nil {
				return plain
			}
		}
	}
	return ""
}

// setBaggage puts the environment into baggage, and keeps what others have there.
func setBaggage(h http.Header, env string) {
	entries := []string{member + "=" + url.PathEscape(env)}
	for _, line := range h.Values("Baggage") {
		for entry := range strings.SplitSeq(line, ",") {
			entry = strings.TrimSpace(entry)
			key, _, _ := strings.Cut(entry, "=")
			if entry != "" && strings.TrimSpace(key) != member {
				entries = append(entries, entry)
			}
		}
	}
	h.Set("Baggage", strings.Join(entries, ","))
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
