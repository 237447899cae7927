package source

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/dayfly-dev/dayfly"
)

// Update is one ref that a push moves.
type Update struct {
	Ref string `json:"ref"`
	Old string `json:"old"` // commit
	New string `json:"new"` // commit
}

// Branch gives the name of the branch; ok is false for other refs.
func (u Update) Branch() (name string, ok bool) { return strings.CutPrefix(u.Ref, "refs/heads/") }

// Deleted says whether the push removes the ref.
func (u Update) Deleted() bool { return strings.Trim(u.New, "0") == "" }

// Receiver is what is asked about a push.
type Receiver interface {
	// Admit says whether a ref may be moved; the error is shown to who pushes.
	Admit(ctx context.Context, u Update) error
	// Landed is called when the refs have moved. What it says is shown to who pushes; ctx ends
	// when he is gone.
	Landed(ctx context.Context, all []Update, options []string, say func(line string))
}

// Server takes pushes into hosted repositories and serves fetches from them, by git's smart
// HTTP protocol. The hooks of a push are processes of our own that ask this one.
type Server struct {
	source  *Source
	hook    []string // the command that a hook is, see RunHook
	log     *slog.Logger
	sockets net.Listener
	serving sync.WaitGroup

	mu     sync.Mutex
	pushes map[string]push // by secret
}

// push is one that goes on.
type push struct {
	ctx      context.Context
	repo     Repo
	receiver Receiver
}

// The variables by which a hook finds the server.
const (
	hookSocket  = "DAYFLY_HOOK_SOCKET"
	hookSecret  = "DAYFLY_HOOK_SECRET"
	hookCommand = "DAYFLY_HOOK_COMMAND"
	hookArg     = "DAYFLY_HOOK_ARG"
)

const hookScript = `#!/bin/sh
exec "$DAYFLY_HOOK_COMMAND" "$DAYFLY_HOOK_ARG" %s "$@"
`

// NewServer makes a Server. Program and argument begin the command that calls RunHook with the
// arguments after them. Close must be called.
func (s *Source) NewServer(program, argument string) (*Server, error) {
	dir := filepath.Join(s.Dir, "hooks")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for _, name := range []string{"update", "post-receive"} {
		if err := os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, hookScript, name), 0o755); err != nil { //nolint:gosec // git runs it
			return nil, err
		}
	}
	// An abstract socket needs no folder whose path may be too long for one.
	l, err := net.Listen("unix", "@dayfly-hook-"+rand.Text())
	if err != nil {
		return nil, err
	}
	server := &Server{source: s, hook: []string{program, argument}, log: s.Logger, sockets: l, pushes: map[string]push{}}
	server.serving.Go(server.accept)
	return server, nil
}

// Close waits for the hooks that are being answered.
func (s *Server) Close() error {
	err := s.sockets.Close()
	s.serving.Wait()
	return err
}

// Serve answers a request for a hosted repository; path is what follows the repository's name.
func (s *Server) Serve(w http.ResponseWriter, r *http.Request, repo Repo, path string, receiver Receiver) {
	service := strings.TrimPrefix(path, "/")
	if path == "/info/refs" {
		service = r.URL.Query().Get("service")
	}
	ok := r.Method == http.MethodPost && path == "/"+service || r.Method == http.MethodGet && path == "/info/refs"
	if !ok || service != "git-upload-pack" && service != "git-receive-pack" {
		http.Error(w, "this is a git repository: give its address to git (push, fetch, clone)", http.StatusNotFound)
		return
	}
	git, err := exec.LookPath("git")
	if err != nil {
		http.Error(w, "the server has no git: install it there", http.StatusInternalServerError)
		return
	}
	env := append(s.source.env(), s.source.receiving()...)
	env = append(env, "GIT_PROJECT_ROOT="+filepath.Dir(repo.Local), "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=dayfly", "GIT_CONFIG_GLOBAL="+s.source.plain)
	if service == "git-receive-pack" && r.Method == http.MethodPost {
		secret := rand.Text()
		s.mu.Lock()
		s.pushes[secret] = push{r.Context(), repo, receiver}
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.pushes, secret)
		}()
		env = append(env, hookSocket+"="+s.sockets.Addr().String(), hookSecret+"="+secret, hookCommand+"="+s.hook[0], hookArg+"="+s.hook[1])
	}
	inner := r.Clone(r.Context())
	inner.URL.Path = "/" + filepath.Base(repo.Local) + path
	inner.Header.Del("Authorization") // it would be a variable of the hooks
	if len(inner.TransferEncoding) > 0 {
		inner.TransferEncoding, inner.ContentLength = nil, -1 // git reads to the end where no length is given
	}
	var said bytes.Buffer
	(&cgi.Handler{
		Path: git, Args: []string{"http-backend"}, Root: "/", Dir: s.source.Dir, Env: env,
		Logger: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn), Stderr: &limited{w: &said, left: 4 << 10},
	}).ServeHTTP(flushing{w}, inner)
	if said.Len() > 0 {
		s.log.Debug("git http-backend", "repository", repo, "said", readable(strings.TrimSpace(said.String())))
	}
}

// flushing sends what is written at once, so that progress is seen.
type flushing struct{ http.ResponseWriter }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	if err == nil {
		err = http.NewResponseController(f.ResponseWriter).Flush()
	}
	return n, err
}

// question is what a hook asks, and answer one line that it gets.
type question struct {
	Secret  string   `json:"secret"`
	Hook    string   `json:"hook"`
	Updates []Update `json:"updates"`
	Options []string `json:"options,omitempty"`
}

type answer struct {
	Line    string `json:"line,omitempty"`
	Done    bool   `json:"done,omitempty"`
	Refused bool   `json:"refused,omitempty"`
}

func (s *Server) accept() {
	for {
		conn, err := s.sockets.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				s.log.Error("pushes can no longer be taken", "error", err)
			}
			return
		}
		s.serving.Go(func() {
			defer conn.Close()
			if err := s.answer(conn); err != nil {
				s.log.Debug("a hook was not answered", "error", err)
			}
		})
	}
}

// answer answers one hook.
func (s *Server) answer(conn net.Conn) error {
	var q question
	if err := json.NewDecoder(io.LimitReader(conn, 64<<20)).Decode(&q); err != nil {
		return err
	}
	s.mu.Lock()
	p, ok := s.pushes[q.Secret]
	s.mu.Unlock()
	if !ok {
		return errors.New("an unknown push")
	}
	out := json.NewEncoder(conn)
	if q.Hook == "update" {
		var refused error
		for _, u := range q.Updates {
			refused = errors.Join(refused, s.admit(p, u))
		}
		last := answer{Done: true, Refused: refused != nil}
		if refused != nil {
			for line := range strings.Lines(refused.Error()) {
				if err := out.Encode(answer{Line: readable(strings.TrimRight(line, "\n"))}); err != nil {
					return err
				}
			}
		}
		return out.Encode(last)
	}
	if err := s.source.settleHead(context.WithoutCancel(p.ctx), p.repo, q.Updates); err != nil {
		s.log.Warn("the default branch of a repository could not be set", "repository", p.repo, "error", err)
	}
	// Several environments may speak at once.
	var mu sync.Mutex
	p.receiver.Landed(p.ctx, q.Updates, q.Options, func(line string) {
		mu.Lock()
		defer mu.Unlock()
		_ = out.Encode(answer{Line: readable(line)}) // who pushed may have gone: what he pushed stays
	})
	mu.Lock()
	defer mu.Unlock()
	return out.Encode(answer{Done: true})
}

func (s *Server) admit(p push, u Update) error {
	branch, ok := u.Branch()
	switch {
	case !ok && !strings.HasPrefix(u.Ref, "refs/tags/"):
		return dayfly.Errorf(dayfly.CodeInvalid, "only branches and tags can be pushed here, not %s", u.Ref)
	case ok:
		if err := validRef(Ref{Branch, branch}); err != nil {
			return err
		}
	}
	return p.receiver.Admit(p.ctx, u)
}

// ErrRefused is what RunHook gives when the server refuses; why has been printed.
var ErrRefused = errors.New("refused")

// RunHook is the body of a hook of git: it asks the server, prints what that says, and fails
// where the server refuses. Args are the hook's name and what git has given it.
func RunHook(args []string, getenv func(string) string, in io.Reader, out io.Writer) error {
	q := question{Secret: getenv(hookSecret)}
	switch {
	case len(args) == 4 && args[0] == "update":
		q.Hook, q.Updates = args[0], []Update{{Ref: args[1], Old: args[2], New: args[3]}}
	case len(args) == 1 && args[0] == "post-receive":
		q.Hook = args[0]
		lines := bufio.NewScanner(in)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if f := strings.SplitN(lines.Text(), " ", 3); len(f) == 3 {
				q.Updates = append(q.Updates, Update{Old: f[0], New: f[1], Ref: f[2]})
			}
		}
		if err := lines.Err(); err != nil {
			return err
		}
	default:
		return errors.New("this command is run by git")
	}
	var n int
	_, _ = fmt.Sscan(getenv("GIT_PUSH_OPTION_COUNT"), &n) // none where it is not set
	for i := range n {
		q.Options = append(q.Options, getenv(fmt.Sprintf("GIT_PUSH_OPTION_%d", i)))
	}
	conn, err := net.Dial("unix", getenv(hookSocket))
	if err != nil {
		return fmt.Errorf("the server is gone: push again: %w", err)
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(q); err != nil {
		return err
	}
	for lines := json.NewDecoder(conn); ; {
		var a answer
		if err := lines.Decode(&a); err != nil {
			return fmt.Errorf("the server is gone: push again: %w", err)
		}
		switch {
		case a.Refused:
			return ErrRefused
		case a.Done:
			return nil
		}
		fmt.Fprintln(out, a.Line)
	}
}
