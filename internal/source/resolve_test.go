package source

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-dev/dayfly"
)

func TestARefGivesItsCommit(t *testing.T) {
	dir := repository(t)
	first := git(t, dir, "rev-parse", "HEAD")
	git(t, dir, "tag", "light")
	git(t, dir, "tag", "--annotate", "--message", "m", "v1.0")
	git(t, dir, "switch", "--quiet", "--create", "feature/one")
	second := commit(t, dir, "second")
	git(t, dir, "switch", "--quiet", "main")
	git(t, dir, "tag", "both", first)
	git(t, dir, "branch", "both", second)
	s, repo := open(t), parse(t, dir)
	for _, c := range []struct {
		what         string
		ref          Ref
		commit, name string
	}{
		{"the default branch", Ref{}, first, "main"},
		{"a branch", Ref{Branch, "feature/one"}, second, "feature/one"},
		{"any: a branch", Ref{Any, "feature/one"}, second, "feature/one"},
		{"any: a tag", Ref{Any, "light"}, first, "light"},
		{"any: an annotated tag", Ref{Any, "v1.0"}, first, "v1.0"},
		{"any: a branch before a tag of its name", Ref{Any, "both"}, second, "both"},
		{"any: a commit", Ref{Any, second}, second, second},
		{"any: an abbreviated commit", Ref{Any, second[:9]}, second, second[:9]},
	} {
		t.Run(c.what, func(t *testing.T) {
			commit, name := resolve(t, s, repo, none, c.ref)
			if commit != c.commit || name != c.name {
				t.Errorf("gives %s (%s), want %s (%s)", commit, name, c.commit, c.name)
			}
		})
	}
}

func TestTheDefaultBranchIsTheOneOfTheRemote(t *testing.T) {
	dir := repository(t)
	git(t, dir, "branch", "--move", "main", "trunk")
	git(t, dir, "branch", "main")
	s, repo := open(t), parse(t, dir)
	if _, name := resolve(t, s, repo, none, Ref{}); name != "trunk" {
		t.Errorf("is %q, want trunk", name)
	}
	git(t, dir, "switch", "--quiet", "main")
	if _, name := resolve(t, s, repo, none, Ref{}); name != "main" {
		t.Errorf("is %q after a change, want main", name)
	}
}

func TestWhatDoesNotExistIsNotFound(t *testing.T) {
	dir := repository(t)
	git(t, dir, "branch", "other")
	git(t, dir, "tag", "v1")
	s, repo := open(t), parse(t, dir)
	for _, c := range []struct {
		ref   Ref
		words []string
	}{
		{Ref{Branch, "gone"}, []string{`no branch "gone"`, dir, "main, other"}},
		{Ref{Branch, "v1"}, []string{`no branch "v1"`}},
		{Ref{Branch, git(t, dir, "rev-parse", "HEAD")}, []string{"no branch"}},
		{Ref{Any, "gone"}, []string{`no branch, tag or commit "gone"`}},
		{Ref{Any, "0123456789"}, []string{"no commit 0123456789"}},
		{Ref{Branch, "feature/../main2"}, nil},
	} {
		_, _, err := s.Resolve(t.Context(), repo, none, c.ref)
		if c.words == nil {
			wantCode(t, err, dayfly.CodeInvalid)
			continue
		}
		wantCode(t, err, dayfly.CodeNotFound, c.words...)
	}
}

func TestAnEmptyRepositorySaysThatABranchHasToBePushed(t *testing.T) {
	dir := t.TempDir()
	git(t, dir, "init", "--quiet", "--initial-branch=main")
	_, _, err := open(t).Resolve(t.Context(), parse(t, dir), none, Ref{})
	wantCode(t, err, dayfly.CodeNotFound, "no default branch")
}

func TestAFolderThatIsNoRepositoryCannotBeRead(t *testing.T) {
	_, _, err := open(t).Resolve(t.Context(), parse(t, t.TempDir()), none, Ref{})
	wantCode(t, err, dayfly.CodeFailed, "cannot be read")
}

func TestABranchThatWasDeletedIsGone(t *testing.T) {
	dir := repository(t)
	git(t, dir, "branch", "short")
	s, repo := open(t), parse(t, dir)
	resolve(t, s, repo, none, Ref{Branch, "short"})
	git(t, dir, "branch", "--delete", "--force", "short")
	_, _, err := s.Resolve(t.Context(), repo, none, Ref{Branch, "short"})
	wantCode(t, err, dayfly.CodeNotFound, `no branch "short"`, "its branches are main")
}

func TestABranchMayTakeThePlaceOfAFolderOfBranches(t *testing.T) {
	dir := repository(t)
	git(t, dir, "switch", "--quiet", "--create", "a/b")
	commit(t, dir, "below")
	s, repo := open(t), parse(t, dir)
	resolve(t, s, repo, none, Ref{Branch, "a/b"})
	git(t, dir, "branch", "--quiet", "--move", "a/b", "a")
	want := commit(t, dir, "instead")
	if got, _ := resolve(t, s, repo, none, Ref{Branch, "a"}); got != want {
		t.Errorf("gives %s, want %s", got, want)
	}
}

func TestACommitThatWasPushedOverCanStillBeCheckedOut(t *testing.T) {
	dir := repository(t)
	old := commit(t, dir, "old")
	s, repo := open(t), parse(t, dir)
	resolve(t, s, repo, none, Ref{Branch, "main"})
	git(t, dir, "reset", "--quiet", "--hard", "HEAD~1")
	commit(t, dir, "new")
	resolve(t, s, repo, none, Ref{Branch, "main"})
	if text := read(t, filepath.Join(tree(t, s, repo, none, old), "text")); text != "old" {
		t.Errorf("has %q", text)
	}
}

// hostile are names that git allows and a shell would not survive.
var hostile = []string{
	"x;touch${IFS}pwned", "$(touch${IFS}pwned)", "`touch${IFS}pwned`", "x|touch${IFS}pwned", "x&touch", "x>pwned", "'", `"`, "%s%n",
	"🦋/ü", "feature/two", "feature-two", "a--upload-pack=touch", "x=y", "#", "!", "{}", "$HOME", strings.Repeat("n", 200),
}

func TestHostileNamesOfBranchesAreNamesOnly(t *testing.T) {
	dir := repository(t)
	commits := map[string]string{}
	for _, name := range hostile {
		git(t, dir, "switch", "--quiet", "--create", name)
		commits[name] = commit(t, dir, "this is "+name)
	}
	s := open(t)
	f := startForge(t, dir, "u", "p", false)
	here := names(t, ".")
	for _, repo := range []Repo{parse(t, dir), parse(t, f.URL+"/.git")} {
		for _, name := range hostile {
			token, kind := none, Branch
			if repo.Local == "" {
				token, kind = f.token(), Any
			}
			got, as := resolve(t, s, repo, token, Ref{kind, name})
			if got != commits[name] || as != name {
				t.Errorf("%s: gives %s as %q, want %s", name, got, as, commits[name])
			}
			if repo.Local == "" && len(name) != 200 {
				continue // the trees come from the mirrors, wherever these are of
			}
			if text := read(t, filepath.Join(tree(t, s, repo, token, commits[name]), "text")); text != "this is "+name {
				t.Errorf("%s: the tree has %q", name, text)
			}
		}
		heads, err := s.Heads(t.Context(), repo, none)
		if repo.Local != "" && (err != nil || heads.Branches["feature/two"] != commits["feature/two"] || len(heads.Branches) != len(hostile)+1) {
			t.Errorf("the heads are %v (%v)", heads, err)
		}
	}
	if now := names(t, "."); now != here {
		t.Errorf("the folder of the process has %s, had %s", now, here)
	}
	for _, place := range []string{s.Dir, os.Getenv("HOME")} {
		if found := search(t, place, "/pwned"); len(found) > 0 {
			t.Errorf("somebody made %v", found)
		}
	}
}

// names gives what is in a folder.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestNamesThatGitRefusesAreInvalid(t *testing.T) {
	s, repo := open(t), parse(t, repository(t))
	for _, name := range []string{
		"", "../", "..", "a/../b", "--upload-pack=touch pwned", "-x", "a\nb", "a\rb", "a\x00b", "a b", "x;touch pwned", "a..b", "a~1", "a^", "a:b", "a?", "a*",
		"a[b", `a\b`, "/a", "a/", "a//b", "a.lock", "a.lock/b", "a.", "@", "@{-1}", "a@{1}", ".a", "a/.b", "\x7f",
	} {
		for _, kind := range []Kind{Branch, Any} {
			_, _, err := s.Resolve(t.Context(), repo, none, Ref{kind, name})
			if dayfly.ErrorCode(err) != dayfly.CodeInvalid {
				t.Errorf("%q is %v, want invalid", name, err)
			}
		}
	}
}

func TestARepositoryIsAURLOfAKindThatIsAllowed(t *testing.T) {
	for _, c := range []struct {
		raw                string
		url, host, secrets string
	}{
		{"https://example.org/a/b.git", "https://example.org/a/b.git", "https://example.org", ""},
		{"http://example.org:8080/a", "http://example.org:8080/a", "http://example.org:8080", ""},
		{"https://user:pass@example.org/a", "https://example.org/a", "https://example.org", "user:pass"},
		{"https://ghp_token@example.org/a", "https://example.org/a", "https://example.org", "ghp_token"},
		{"https://user:p%40ss@example.org/a", "https://example.org/a", "https://example.org", "user:p@ss"},
		{"https://[::1]:8443/a", "https://[::1]:8443/a", "https://[::1]:8443", ""},
		{"https://example.org/a?access=1#x", "https://example.org/a", "https://example.org", ""},
		{"ssh://git@example.org:22/a", "ssh://git@example.org:22/a", "ssh://example.org:22", ""},
		{"ssh://git:pass@example.org/a", "ssh://git@example.org/a", "ssh://example.org", ""},
		{"git@example.org:a/b.git", "git@example.org:a/b.git", "ssh://example.org", ""},
		{"git://example.org/a", "git://example.org/a", "git://example.org", ""},
		{"/srv/a/../b", "/srv/b", "", ""},
		{"file:///srv/b", "/srv/b", "", ""},
	} {
		repo, token, err := ParseRepo(c.raw, true)
		if err != nil {
			t.Errorf("%s: %v", c.raw, err)
			continue
		}
		if repo.String() != c.url || repo.Host != c.host || token.Reveal() != c.secrets {
			t.Errorf("%s: is %s at %q with %q", c.raw, repo, repo.Host, token.Reveal())
		}
	}
	for _, raw := range []string{
		"", "-oProxyCommand=touch", "--upload-pack=touch", "ext::sh -c touch% pwned", "ext::https://example.org/", "fd::3", "a::b", "https://example.org/a\nb", "https://example.org/\x00",
		"ftp://example.org/a", "https:///a", "https://-x/a", "ssh://-oProxyCommand=touch/a", "git@-oProxyCommand=touch:a", "relative/path", "./a", "../a", "~/a",
		"https://user:top-secret@exa mple.org/", "https://user:top-secret@/x::y", "javascript://x",
	} {
		_, _, err := ParseRepo(raw, true)
		if dayfly.ErrorCode(err) != dayfly.CodeInvalid {
			t.Errorf("%q is %v, want invalid", raw, err)
		} else if strings.Contains(err.Error(), "top-secret") {
			t.Errorf("%q: the error shows the password: %v", raw, err)
		}
	}
	for _, raw := range []string{"/srv/a", "file:///srv/a"} {
		_, _, err := ParseRepo(raw, false)
		wantCode(t, err, dayfly.CodeInvalid, "--allow-local-repos")
	}
}

func FuzzARepositoryNeverLooksLikeAnOptionOrAHelper(f *testing.F) {
	for _, seed := range []string{"https://u:p@h/x", "git@h:p", "/srv/x", "file:///x", "ext::sh", "-x", "ssh://-o/x", "a@-b:c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		repo, _, err := ParseRepo(raw, true)
		if err != nil {
			return
		}
		if strings.HasPrefix(repo.URL, "-") || helper.MatchString(repo.URL) || strings.ContainsAny(repo.URL, "\n\r\x00") {
			t.Errorf("%q is let through as %q", raw, repo.URL)
		}
		if strings.Contains(repo.Host, "//-") {
			t.Errorf("%q has the host %q", raw, repo.Host)
		}
		again, token, err := ParseRepo(repo.URL, true)
		if err != nil || again != repo || !token.IsZero() {
			t.Errorf("%q is %v, and read again %v (%v)", raw, repo, again, err)
		}
	})
}

func TestARepositoryThatSaysNothingIsGivenUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // its backlog takes connections that nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := open(t)
	s.Answer = 200 * time.Millisecond
	for _, scheme := range []string{"http", "git"} {
		repo, _, err := ParseRepo(scheme+"://"+l.Addr().String()+"/app", true)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = s.Resolve(t.Context(), repo, dayfly.Secret{}, Ref{})
		if dayfly.ErrorCode(err) != dayfly.CodeTimeout || !strings.Contains(err.Error(), "did not answer within 200ms") {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}
