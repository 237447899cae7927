// Package source gets commits and their trees out of git repositories, with the git
// program. Nothing in a repository runs: no hook, filter, submodule or helper.
package source

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/crash"
	"github.com/dayfly-dev/dayfly/internal/files"
)

// Config says where and from where sources are kept.
type Config struct {
	Dir      string
	MaxBytes int64 // of trees and mirrors; 0 = no bound
	MaxPush  int64 // bytes of one push; 0 = no bound
	// Answer is how long a repository may take to list its branches and tags; 0 = 1 min.
	Answer time.Duration
	Logger *slog.Logger
}

// Source keeps a mirror of every repository and trees of their commits.
type Source struct {
	Config
	askpass string
	plain   string // git's global configuration, for us
	config  string // the same, and the user's credential helpers
	flights flights

	mu    sync.Mutex
	known map[string]listing       // by folder of a local repository
	uses  map[string]int           // of trees, by folder
	busy  map[string]chan struct{} // holds a token while a mirror is written to, by folder
}

// listing is what ls-remote said when a repository looked like this.
type listing struct {
	print string
	refs  refs
}

// refs are the branches and tags of a repository.
type refs struct {
	dayfly.Heads
	tags map[string]string
}

// New makes the folders.
func New(config Config) (*Source, error) {
	if config.Answer == 0 {
		config.Answer = time.Minute
	}
	s := &Source{Config: config, known: map[string]listing{}, uses: map[string]int{}, busy: map[string]chan struct{}{}}
	for _, dir := range []string{"mirrors", "trees", pushed} {
		if err := os.MkdirAll(filepath.Join(config.Dir, dir), 0o711); err != nil {
			return nil, err
		}
	}
	if err := s.sweep(); err != nil {
		return nil, err
	}
	s.askpass = filepath.Join(config.Dir, "askpass")
	if err := os.WriteFile(s.askpass, []byte(askpass), 0o700); err != nil {
		return nil, err
	}
	if err := s.writeConfigs(); err != nil {
		return nil, err
	}
	return s, nil
}

// making marks the name of a folder that is not complete yet.
const making = ".new-"

// sweep removes what a crash left half done, and the locks of a git that was killed,
// which would keep every later one out.
func (s *Source) sweep() error {
	found, err := filepath.Glob(filepath.Join(s.Dir, "*", "*"+making+"*"))
	for _, dir := range found {
		err = errors.Join(err, files.RemoveAll(dir))
	}
	locks := func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), "tmp_objdir-"): // of a push that was cut
			return errors.Join(files.RemoveAll(path), fs.SkipDir)
		case d.IsDir():
			return nil
		}
		if strings.HasSuffix(path, ".lock") || strings.HasPrefix(d.Name(), "tmp_") && strings.Contains(path, "/objects/") {
			return os.Remove(path)
		}
		return nil
	}
	return errors.Join(err, filepath.WalkDir(filepath.Join(s.Dir, "mirrors"), locks), filepath.WalkDir(filepath.Join(s.Dir, pushed), locks))
}

// maxListing is how many bytes of refs a repository can have.
const maxListing = 64 << 20

// Kind says how a Ref is read.
type Kind int

// The kinds of refs.
const (
	Default Kind = iota // the default branch
	Branch
	Any // branch, tag or commit
)

// Ref names a commit.
type Ref struct {
	Kind Kind
	Name string
}

// Resolve gives the commit of a ref and the name of the ref (that of the default
// branch, where that was asked for). The repository is asked each time.
func (s *Source) Resolve(ctx context.Context, repo Repo, token dayfly.Secret, ref Ref) (commit, name string, err error) {
	if err := validRef(ref); err != nil {
		return "", "", err
	}
	list, err := s.list(ctx, repo, token)
	if err != nil {
		return "", "", err
	}
	name = ref.Name
	switch ref.Kind {
	case Default:
		name = list.Default
		commit = list.Branches[name]
		if commit == "" {
			return "", "", dayfly.Errorf(dayfly.CodeNotFound, "%s has no default branch yet: push one", repo)
		}
	case Branch:
		commit = list.Branches[name]
	default:
		commit = list.Branches[name]
		if commit == "" {
			commit = list.tags[name]
		}
		if commit == "" && isHash(name) {
			return s.byHash(ctx, repo, token, name)
		}
	}
	if commit == "" {
		return "", "", notFound(repo, ref, list)
	}
	return commit, name, s.fetch(ctx, repo, token, commit)
}

// Heads gives the branches and their commits.
func (s *Source) Heads(ctx context.Context, repo Repo, token dayfly.Secret) (dayfly.Heads, error) {
	list, err := s.list(ctx, repo, token)
	return list.Heads, err
}

func validRef(ref Ref) error {
	if ref.Kind == Default {
		return nil
	}
	n := ref.Name
	if n == "" || strings.HasPrefix(n, "-") || n == "@" || strings.HasSuffix(n, ".") ||
		strings.Contains(n, "..") || strings.Contains(n, "@{") ||
		slices.ContainsFunc(strings.Split(n, "/"), func(part string) bool {
			return part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock")
		}) ||
		strings.ContainsFunc(n, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r) }) {
		return dayfly.Invalid(dayfly.Problem{Field: "branch", Message: fmt.Sprintf("%q is no name that git allows", n)})
	}
	return nil
}

func isHash(s string) bool {
	return len(s) >= 7 && len(s) <= 40 && !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune("0123456789abcdef", r) })
}

// byHash finds a commit by its full or abbreviated hash.
func (s *Source) byHash(ctx context.Context, repo Repo, token dayfly.Secret, hash string) (string, string, error) {
	if err := s.fetchAll(ctx, repo, token); err != nil {
		return "", "", err
	}
	var out bytes.Buffer
	err := s.git(ctx, access{}, s.mirror(repo), &out, "rev-parse", "--verify", "--quiet", "--end-of-options", hash+"^{commit}")
	var said *gitError
	if errors.As(err, &said) {
		return "", "", dayfly.Errorf(dayfly.CodeNotFound, "%s has no commit %s in any of its branches", repo, hash)
	}
	return strings.TrimSpace(out.String()), hash, err
}

func notFound(repo Repo, ref Ref, list refs) error {
	what := "branch"
	if ref.Kind == Any {
		what = "branch, tag or commit"
	}
	names := slices.Sorted(maps.Keys(list.Branches))
	more := ""
	if len(names) > 10 {
		names, more = names[:10], ", …"
	}
	return dayfly.Errorf(dayfly.CodeNotFound, "%s has no %s %q; its branches are %s%s", repo, what, ref.Name, strings.Join(names, ", "), more)
}

// list asks a repository for its refs; a local one only when its files have changed.
func (s *Source) list(ctx context.Context, repo Repo, token dayfly.Secret) (refs, error) {
	print, local := s.Fingerprint(repo)
	if local {
		s.mu.Lock()
		l, ok := s.known[repo.Local]
		s.mu.Unlock()
		if ok && l.print == print {
			return l.refs, nil
		}
	}
	var out bytes.Buffer
	asking, cancel := context.WithTimeout(ctx, s.Answer)
	defer cancel()
	if err := s.git(asking, access{token, repo.Host}, s.Dir, &limited{w: &out, left: maxListing}, "ls-remote", "--symref", "--end-of-options", repo.remote()); err != nil {
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return refs{}, dayfly.Errorf(dayfly.CodeTimeout, "%s did not answer within %s: see whether the server's host can reach it", repo, s.Answer)
		}
		return refs{}, unreachable(repo, token, err)
	}
	if out.Len() >= maxListing {
		return refs{}, dayfly.Errorf(dayfly.CodeFailed, "%s has more branches and tags than can be read", repo)
	}
	r := refs{dayfly.Heads{Branches: map[string]string{}}, map[string]string{}}
	head := ""
	for line := range strings.Lines(out.String()) {
		value, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		switch {
		case name == "HEAD" && strings.HasPrefix(value, "ref: refs/heads/"):
			r.Default = strings.TrimPrefix(value, "ref: refs/heads/")
		case name == "HEAD":
			head = value
		case strings.HasPrefix(name, "refs/heads/"):
			r.Branches[strings.TrimPrefix(name, "refs/heads/")] = value
		case strings.HasPrefix(name, "refs/tags/"):
			// An annotated tag comes twice; the second line, ^{}, is the commit.
			r.tags[strings.TrimSuffix(strings.TrimPrefix(name, "refs/tags/"), "^{}")] = value
		}
	}
	if r.Branches[r.Default] == "" { // detached, or a branch without commits
		for _, name := range slices.Sorted(maps.Keys(r.Branches)) {
			if r.Branches[name] == head || head == "" && (name == "main" || name == "master") {
				r.Default = name
				break
			}
		}
	}
	if local {
		s.mu.Lock()
		s.known[repo.Local] = listing{print, r}
		s.mu.Unlock()
	}
	return r, nil
}

func unreachable(repo Repo, token dayfly.Secret, err error) error {
	var said *gitError
	if !errors.As(err, &said) {
		return err
	}
	text := said.Error()
	denied := slices.ContainsFunc([]string{
		"Authentication failed", "could not read Username", "could not read Password", "Permission denied", "returned error: 403",
	}, func(sign string) bool { return strings.Contains(said.text, sign) })
	switch {
	case denied && !token.IsZero():
		return &dayfly.Error{Code: dayfly.CodeForbidden, Err: err,
			Message: fmt.Sprintf("%s does not take the token: give one that may read it (--github-token) (%s)", repo, text)}
	case denied:
		return &dayfly.Error{Code: dayfly.CodeForbidden, Err: err,
			Message: fmt.Sprintf("%s wants a login: give a token (--github-token), or set up git's credentials for the server's user (%s)", repo, text)}
	}
	return &dayfly.Error{Code: dayfly.CodeFailed, Err: err, Message: fmt.Sprintf("%s cannot be read: %s", repo, text)}
}

func (s *Source) mirror(repo Repo) string {
	if repo.Hosted {
		return repo.Local
	}
	sum := sha256.Sum256([]byte(repo.URL))
	return filepath.Join(s.Dir, "mirrors", hex.EncodeToString(sum[:10]))
}

// fetch brings a commit into the mirror, unless it is there.
func (s *Source) fetch(ctx context.Context, repo Repo, token dayfly.Secret, commit string) error {
	if s.has(ctx, repo, commit) {
		return nil
	}
	if err := s.fetchAll(ctx, repo, token); err != nil {
		return err
	}
	if !s.has(ctx, repo, commit) {
		return dayfly.Errorf(dayfly.CodeNotFound, "%s has no commit %s any more", repo, commit)
	}
	return nil
}

func (s *Source) has(ctx context.Context, repo Repo, commit string) bool {
	if _, err := os.Stat(filepath.Join(s.Dir, "trees", treeName(repo, commit))); err == nil {
		return true
	}
	if _, err := os.Stat(s.mirror(repo)); err != nil {
		return false
	}
	return s.git(ctx, access{}, s.mirror(repo), nil, "cat-file", "-e", "--end-of-options", commit+"^{commit}") == nil
}

// fetchAll brings all refs into the mirror; callers at the same time share one fetch,
// unless they have different tokens.
func (s *Source) fetchAll(ctx context.Context, repo Repo, token dayfly.Secret) error {
	if repo.Hosted {
		return nil // it is the origin itself
	}
	return s.flights.do(ctx, "fetch "+repo.URL+"\x00"+token.Reveal(), func(ctx context.Context) error {
		dir := s.mirror(repo)
		done, err := s.lock(ctx, dir)
		if err != nil {
			return err
		}
		defer done()
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			if err := s.initMirror(ctx, dir); err != nil {
				return err
			}
		}
		crash.Point("before fetching")
		defer crash.Point("after fetching")
		err = s.git(ctx, access{token, repo.Host}, dir, nil, "fetch", "--quiet", "--prune", "--force", "--no-recurse-submodules", "--no-write-fetch-head", "--no-tags",
			"--end-of-options", repo.URL, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
		if err != nil {
			return unreachable(repo, token, err)
		}
		return nil
	})
}

func (s *Source) initMirror(ctx context.Context, dir string) error {
	fresh, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+making)
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	if err := s.git(ctx, access{}, fresh, nil, "init", "--quiet", "--bare", "--template="); err != nil {
		return err
	}
	crash.Point("before a mirror is there")
	return os.Rename(fresh, dir)
}

// lock waits until nobody else writes to a mirror.
func (s *Source) lock(ctx context.Context, dir string) (done func(), err error) {
	s.mu.Lock()
	busy := s.busy[dir]
	if busy == nil {
		busy = make(chan struct{}, 1)
		s.busy[dir] = busy
	}
	s.mu.Unlock()
	select {
	case busy <- struct{}{}:
		return func() { <-busy }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func treeName(repo Repo, commit string) string {
	sum := sha256.Sum256([]byte(repo.URL + "\x00" + commit))
	return hex.EncodeToString(sum[:16])
}

// Tree gives a folder with the files of a commit, for reading. It stays at least
// until release is called.
func (s *Source) Tree(ctx context.Context, repo Repo, token dayfly.Secret, commit string) (dir string, release func(), err error) {
	dir = filepath.Join(s.Dir, "trees", treeName(repo, commit))
	release = s.use(dir)
	err = s.flights.do(ctx, "tree "+dir, func(ctx context.Context) error {
		if os.Chtimes(dir, time.Time{}, time.Now()) == nil { // used now: see Sweep
			return nil
		}
		fresh, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+making)
		if err != nil {
			return err
		}
		defer func() { _ = files.RemoveAll(fresh) }()
		if err := s.write(ctx, repo, token, commit, fresh, false); err != nil {
			return err
		}
		if err := os.Chmod(fresh, 0o755); err != nil {
			return err
		}
		crash.Point("before a tree is whole")
		defer crash.Point("after a tree is whole")
		return os.Rename(fresh, dir)
	})
	if err != nil {
		release()
		return "", func() {}, err
	}
	return dir, release, nil
}

// Objects gives what identifies the content of paths at a commit: the hashes of their trees and
// files. Those that are not there are left out; "." is the whole tree.
func (s *Source) Objects(ctx context.Context, repo Repo, token dayfly.Secret, commit string, paths []string) (map[string]string, error) {
	if err := s.fetch(ctx, repo, token, commit); err != nil {
		return nil, err
	}
	if !s.inMirror(ctx, repo, commit) {
		if err := s.fetchAll(ctx, repo, token); err != nil {
			return nil, err
		}
	}
	found := map[string]string{}
	var inside []string
	for _, p := range paths {
		if p == "." {
			var out bytes.Buffer
			if err := s.git(ctx, access{}, s.mirror(repo), &out, "rev-parse", "--verify", "--quiet", "--end-of-options", commit+"^{tree}"); err != nil {
				return nil, err
			}
			found[p] = strings.TrimSpace(out.String())
			continue
		}
		inside = append(inside, p)
	}
	if len(inside) == 0 {
		return found, nil
	}
	var out bytes.Buffer
	args := append([]string{"--literal-pathspecs", "ls-tree", "-z", "--full-tree", "--end-of-options", commit, "--"}, inside...)
	if err := s.git(ctx, access{}, s.mirror(repo), &out, args...); err != nil {
		return nil, err
	}
	for entry := range strings.SplitSeq(strings.TrimSuffix(out.String(), "\x00"), "\x00") {
		if meta, name, ok := strings.Cut(entry, "\t"); ok {
			// The mode belongs to it: a program may have become executable.
			found[name] = meta
		}
	}
	return found, nil
}

// Worktree writes the files of a commit into the empty folder dst, with a small
// repository of their own.
func (s *Source) Worktree(ctx context.Context, repo Repo, token dayfly.Secret, commit, dst string) error {
	return s.write(ctx, repo, token, commit, dst, true)
}

// write checks a commit out of a small repository of its own, which has nothing but
// this commit.
func (s *Source) write(ctx context.Context, repo Repo, token dayfly.Secret, commit, dst string, keepGit bool) error {
	_ = os.Chtimes(s.mirror(repo), time.Time{}, time.Now()) // used now: see Sweep; it may not be there yet
	if err := s.fetch(ctx, repo, token, commit); err != nil {
		return err
	}
	if !s.inMirror(ctx, repo, commit) {
		if err := s.fetchAll(ctx, repo, token); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"init", "--quiet", "--template="},
		{"fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--end-of-options", "file://" + s.mirror(repo), commit},
		{"checkout", "--quiet", "--detach", "FETCH_HEAD"},
	} {
		if err := s.git(ctx, access{}, dst, nil, args...); err != nil {
			return &dayfly.Error{Code: dayfly.CodeFailed, Err: err, Message: fmt.Sprintf("commit %s of %s cannot be checked out: %v", commit, repo, err)}
		}
	}
	if keepGit {
		return nil
	}
	return os.RemoveAll(filepath.Join(dst, ".git"))
}

func (s *Source) inMirror(ctx context.Context, repo Repo, commit string) bool {
	return s.git(ctx, access{}, s.mirror(repo), nil, "cat-file", "-e", "--end-of-options", commit+"^{commit}") == nil
}

// setAside gives a folder that nobody uses another name, so that nobody begins to use it
// while it is removed.
func (s *Source) setAside(dir string) (gone string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uses[dir] > 0 {
		return "", nil
	}
	gone = dir + making + "gone"
	return gone, os.Rename(dir, gone)
}
