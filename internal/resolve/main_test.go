package resolve

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
)

// shelf is a Sources of folders: repository -> branch or tag -> commit, and the files of
// each commit. The default branch is "main".
type shelf struct {
	t     *testing.T
	refs  map[string]map[string]string
	trees map[string]string // by repository and commit

	shown map[string][]string // the tokens that each repository was shown
	held  int                 // trees that were not let go of
}

func newShelf(t *testing.T) *shelf {
	s := &shelf{t: t, refs: map[string]map[string]string{}, trees: map[string]string{}, shown: map[string][]string{}}
	t.Cleanup(func() {
		if s.held != 0 {
			t.Errorf("%d trees were not let go of", s.held)
		}
	})
	return s
}

// put writes a commit with a file of each name, and refs that lead to it.
func (s *shelf) put(repo, commit string, files map[string]string, refs ...string) *shelf {
	s.t.Helper()
	dir := s.t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	if s.refs[repo] == nil {
		s.refs[repo] = map[string]string{}
	}
	for _, ref := range append(refs, commit) {
		s.refs[repo][ref] = commit
	}
	s.trees[repo+"@"+commit] = dir
	return s
}

func (s *shelf) Resolve(_ context.Context, repo string, token dayfly.Secret, ref Ref) (commit, name string, err error) {
	s.shown[repo] = append(s.shown[repo], token.Reveal())
	name = ref.Name
	if ref.Kind == DefaultBranch {
		name = "main"
	}
	commit, ok := s.refs[repo][name]
	if !ok || ref.Kind == Branch && (commit == name || strings.HasPrefix(name, "v")) { // those are tags
		return "", "", dayfly.Errorf(dayfly.CodeNotFound, "%s has no %q", repo, name)
	}
	return commit, name, nil
}

func (s *shelf) Heads(_ context.Context, repo string, _ dayfly.Secret) (dayfly.Heads, error) {
	return dayfly.Heads{Default: "main", Branches: s.refs[repo]}, nil
}

func (s *shelf) Objects(_ context.Context, repo string, _ dayfly.Secret, commit string, paths []string) (map[string]string, error) {
	found := map[string]string{}
	for _, p := range paths {
		b, err := os.ReadFile(filepath.Join(s.trees[repo+"@"+commit], p))
		if p == "." {
			b, err = []byte(commit), nil
		}
		if err == nil {
			found[p] = string(b)
		}
	}
	return found, nil
}

func (s *shelf) Tree(_ context.Context, repo string, token dayfly.Secret, commit string) (string, func(), error) {
	s.shown[repo] = append(s.shown[repo], token.Reveal())
	dir, ok := s.trees[repo+"@"+commit]
	if !ok {
		return "", nil, dayfly.Errorf(dayfly.CodeNotFound, "%s has no commit %s any more", repo, commit)
	}
	s.held++
	return dir, func() { s.held-- }, nil
}

func host(repo string) string {
	_, rest, _ := strings.Cut(repo, "://")
	h, _, _ := strings.Cut(rest, "/")
	return h
}

func (s *shelf) SameHost(a, b string) bool { return host(a) == host(b) }

func (s *shelf) Clean(repo string) (string, dayfly.Secret, error) {
	if strings.HasPrefix(repo, "ext::") {
		return "", dayfly.Secret{}, dayfly.Invalid(dayfly.Problem{Field: "repo", Message: "is not allowed"})
	}
	scheme, rest, _ := strings.Cut(repo, "://")
	if user, rest, ok := strings.Cut(rest, "@"); ok {
		return scheme + "://" + rest, dayfly.NewSecret(user), nil
	}
	return repo, dayfly.Secret{}, nil
}

func (s *shelf) Base(repo string) string { return filepath.Base(repo) }

const shop, backend, elsewhere = "https://git.example/shop", "https://git.example/backend", "https://other.example/backend"

// wish is what a test asks for.
type wish struct {
	dayfly.EnvironmentSpec
	previous *dayfly.Resolution
}

func (s *shelf) resolver() *Resolver {
	return &Resolver{
		Sources: s, Now: func() time.Time { return time.Unix(1000, 0) },
		Config: Config{
			Domain: "dev.example", HostPattern: "{service}--{env}", InternalPort: func() int { return 7080 },
			PublicURL: func(host string) string { return "http://" + host + ":8080" },
		},
	}
}

func (s *shelf) ask(w wish) (*dayfly.Resolution, error) {
	w.Name = "env"
	given := 0
	return s.resolver().Resolve(context.Background(), Input{
		Project: dayfly.Project{Name: "shop", Repo: shop},
		Record:  dayfly.EnvironmentRecord{ID: "id", Spec: w.EnvironmentSpec},
		Token:   dayfly.NewSecret("the-token"), Credential: "credential",
		Previous: w.previous,
		Address:  func() (string, error) { given++; return fmt.Sprintf("127.9.0.%d", given), nil },
	})
}

func (s *shelf) must(w wish) *dayfly.Resolution {
	s.t.Helper()
	res, err := s.ask(w)
	if err != nil {
		s.t.Fatal(err)
	}
	return res
}

// refuse wants an error with a code and these words.
func (s *shelf) refuse(w wish, code dayfly.Code, words ...string) {
	s.t.Helper()
	res, err := s.ask(w)
	if dayfly.ErrorCode(err) != code {
		s.t.Fatalf("gives %v, %v (%s), want %s", res, err, dayfly.ErrorCode(err), code)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			s.t.Errorf("the error says %q, and nothing of %q", err, word)
		}
	}
}

func service(t testing.TB, res *dayfly.Resolution, name string) dayfly.ResolvedService {
	t.Helper()
	for _, rs := range res.Services {
		if rs.Name == name {
			return rs
		}
	}
	t.Fatalf("there is no service %s", name)
	return dayfly.ResolvedService{}
}

func names(res *dayfly.Resolution) string {
	var all []string
	for _, rs := range res.Services {
		all = append(all, rs.Name)
	}
	return strings.Join(all, " ")
}

// versions gives each service as name@version=commit.
func versions(res *dayfly.Resolution) string {
	var all []string
	for _, rs := range res.Services {
		all = append(all, rs.Name+"@"+rs.Version+"="+rs.Commit)
	}
	return strings.Join(all, " ")
}

// problems gives those of an error.
func problems(t testing.TB, err error) []dayfly.Problem {
	t.Helper()
	var e *dayfly.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no error for users", err)
	}
	return e.Problems
}

func lookup(vars map[string]string, names ...string) (found []string) {
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		for _, wanted := range names {
			if strings.HasPrefix(name, wanted) {
				found = append(found, name+"="+vars[name])
			}
		}
	}
	return found
}
