package api

import (
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// maxBody is the largest body under /v1, in bytes.
const maxBody = 1 << 20

// safe refuses what a page in somebody's browser could send: it must not be able to run
// commands here. A preview on a name of ours is such a page, too.
func (s *server) safe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		refuse := func(status int, code, detail string) {
			writeProblem(w, Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail})
		}
		if !s.knownHost(r) {
			refuse(http.StatusMisdirectedRequest, "unknown_host", "this server does not answer to the name "+r.Host)
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" && !sameOrigin(origin, r.Host) {
			refuse(http.StatusForbidden, "foreign_origin", "requests from pages of other origins are refused")
			return
		}
		switch r.Header.Get("Sec-Fetch-Site") {
		case "", "none", "same-origin":
		default:
			if r.Method != http.MethodGet && r.Method != http.MethodHead || strings.HasPrefix(r.URL.Path, "/v1/") {
				refuse(http.StatusForbidden, "foreign_origin", "requests from pages of other sites are refused")
				return
			}
		}
		if strings.HasPrefix(r.URL.Path, "/v1/") {
			if r.ContentLength != 0 || r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch {
				kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
				if err == nil && kind != "application/json" && dumpKind(kind) && takesDump(r) {
					next.ServeHTTP(w, r) // of any size
					return
				}
				if (err != nil || kind != "application/json") && (r.ContentLength != 0 || r.Header.Get("Content-Type") != "") {
					refuse(http.StatusUnsupportedMediaType, "content_type", "bodies have to be application/json, and dumps application/octet-stream")
					return
				}
				if err == nil { // however it was written
					r.Header.Set("Content-Type", kind)
				}
			}
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		}
		next.ServeHTTP(w, r)
	})
}

// knownHost says whether a Host header names this server: a name that resolves to it only
// because somebody's DNS says so does not. Where others may call, the address that they
// reached is one, too.
func (s *server) knownHost(r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if host == "localhost" || slices.Contains(s.Hosts, host) {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && (ip.IsLoopback() || s.NeedToken && ip.Unmap() == reached(r))
}

// reached is the address of this host at which a request came; the zero one = unknown.
func reached(r *http.Request) netip.Addr {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return local.AddrPort().Addr().Unmap()
}

func sameOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}
