package e2e

import (
	"crypto/subtle"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os/exec"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdGitHTTP serves the repositories below a folder through git http-backend, with a
// password: githttp USER PASSWORD DIR. $GIT_URL is where.
func cmdGitHTTP(ts *testscript.TestScript, _ bool, args []string) {
	user, password, dir := args[0], args[1], ts.MkAbs(args[2])
	path, err := exec.LookPath("git")
	ts.Check(err)
	backend := &cgi.Handler{Path: path, Stderr: io.Discard, Args: []string{"http-backend"}, Dir: dir,
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + ts.Getenv("HOME")}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, p, _ := r.BasicAuth()
		if u != user && user != "*" || subtle.ConstantTimeCompare([]byte(p), []byte(password)) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		r.Header.Del("Authorization") // the backend must not put it into its variables
		backend.ServeHTTP(w, r)
	}))
	ts.Defer(s.Close)
	ts.Setenv("GIT_URL", s.URL)
	ts.Setenv("GIT_HOST", strings.TrimPrefix(s.URL, "http://"))
}
