package source

import (
	"path/filepath"
	"testing"
)

func TestTheFingerprintChangesWithEveryBranch(t *testing.T) {
	s := open(t)
	for what, make := range map[string]func(t *testing.T) (local, work string){
		"a work tree": func(t *testing.T) (string, string) { d := repository(t); return d, d },
		"its .git":    func(t *testing.T) (string, string) { d := repository(t); return filepath.Join(d, ".git"), d },
		"a bare one": func(t *testing.T) (string, string) {
			d := filepath.Join(t.TempDir(), "bare")
			git(t, ".", "init", "--quiet", "--bare", "--initial-branch=main", d)
			work := repository(t)
			git(t, work, "remote", "add", "origin", d)
			git(t, work, "config", "push.default", "current")
			return d, work
		},
		"an added work tree": func(t *testing.T) (string, string) {
			main := repository(t)
			added := filepath.Join(t.TempDir(), "added")
			git(t, main, "worktree", "add", "--quiet", "-b", "of-added", added)
			return added, added
		},
	} {
		t.Run(what, func(t *testing.T) {
			local, work := make(t)
			repo := parse(t, local)
			sync := func() {
				if what == "a bare one" {
					git(t, work, "push", "--quiet", "--mirror", "origin")
				}
			}
			sync()
			print := func() string {
				p, ok := s.Fingerprint(repo)
				if !ok {
					t.Fatal("is not local")
				}
				return p
			}
			last := print()
			if print() != last {
				t.Error("changes by itself")
			}
			for _, step := range []struct {
				what string
				do   func()
			}{
				{"a commit", func() { commit(t, work, "one") }},
				{"another commit", func() { commit(t, work, "two") }},
				{"a new branch", func() { git(t, work, "branch", "deep/er/one") }},
				{"a branch that moved", func() { git(t, work, "branch", "--force", "deep/er/one", "HEAD~1") }},
				{"packed refs", func() { git(t, work, "pack-refs", "--all") }},
				{"a packed branch that is deleted", func() { git(t, work, "branch", "--delete", "--force", "deep/er/one") }},
				{"a new tag", func() { git(t, work, "tag", "v1") }},
				{"a commit on a packed branch", func() { commit(t, work, "three") }},
			} {
				step.do()
				sync()
				now := print()
				if now == last && (what != "a bare one" || step.what != "packed refs") { // packing is no news to who it is pushed to
					t.Errorf("%s does not change it", step.what)
				}
				last = now
			}
		})
	}
}

func TestALinkedWorktreeIsResolvedAsItIsNow(t *testing.T) {
	main := repository(t)
	added := filepath.Join(t.TempDir(), "added")
	git(t, main, "worktree", "add", "--quiet", "-b", "of-added", added)
	s, repo := open(t), parse(t, added)
	resolve(t, s, repo, none, Ref{Branch, "of-added"})
	want := commit(t, added, "more")
	if got, _ := resolve(t, s, repo, none, Ref{Branch, "of-added"}); got != want {
		t.Errorf("gives %s, want %s", got, want)
	}
}

func TestARepositoryElsewhereHasNoFingerprint(t *testing.T) {
	if p, ok := open(t).Fingerprint(parse(t, "https://example.org/a")); ok || p != "" {
		t.Errorf("it is %q, %t", p, ok)
	}
}

func BenchmarkFingerprint(b *testing.B) {
	s, repo := open(b), parse(b, repository(b))
	for b.Loop() {
		s.Fingerprint(repo)
	}
}

func BenchmarkResolveWarm(b *testing.B) {
	s, repo := open(b), parse(b, repository(b))
	for b.Loop() {
		resolve(b, s, repo, none, Ref{})
	}
}

func BenchmarkTreeWarm(b *testing.B) {
	s, repo := open(b), parse(b, repository(b))
	commit, _ := resolve(b, s, repo, none, Ref{})
	for b.Loop() {
		_, release, err := s.Tree(b.Context(), repo, none, commit)
		if err != nil {
			b.Fatal(err)
		}
		release()
	}
}
