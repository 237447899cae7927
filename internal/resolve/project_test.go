package resolve

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dayfly-dev/dayfly"
)

func TestTheFilesOfEnvironmentsOfARepositoryAreReadInTheirOrder(t *testing.T) {
	s := newShelf(t).put(shop, "c1", nil, "main")
	dir := s.trees[shop+"@c1"]
	outside := filepath.Join(t.TempDir(), "secret.yaml")
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(outside, "name: secret")
	for name, text := range map[string]string{
		"b.yaml": "name: b", "a.yml": "name: a", ".hidden.yaml": "no", "notes.txt": "no", "sub/c.yaml": "no", "d.yaml~": "no",
		"large.yaml": strings.Repeat("#", maxFile+1), "just.yaml": strings.Repeat("#", maxFile),
	} {
		write(filepath.Join(dir, "environments", name), text)
	}
	if err := os.Mkdir(filepath.Join(dir, "environments", "folder.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "environments", "link.yaml")); err != nil {
		t.Fatal(err)
	}
	files, err := s.resolver().EnvironmentFiles(t.Context(), shop, dayfly.Secret{}, "c1")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		if strings.Contains(string(f.Data), "secret") {
			t.Errorf("%s leads out of the repository", f.Name)
		}
		got = append(got, fmt.Sprintf("%s %d %t", f.Name, len(f.Data), f.Err == nil))
	}
	want := fmt.Sprintf("environments/a.yml 7 true, environments/b.yaml 7 true, environments/just.yaml %d true, environments/large.yaml 0 false, environments/link.yaml 0 false", maxFile)
	if strings.Join(got, ", ") != want {
		t.Errorf("the files are %q, want %q", got, want)
	}
}

func TestARepositoryWithoutAFolderOfEnvironmentsHasNoFiles(t *testing.T) {
	elsewhere := t.TempDir()
	if err := os.WriteFile(filepath.Join(elsewhere, "a.yaml"), []byte("name: a"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, prepare := range map[string]func(folder string) error{
		"none":           func(string) error { return nil },
		"a file":         func(folder string) error { return os.WriteFile(folder, nil, 0o600) },
		"a link outside": func(folder string) error { return os.Symlink(elsewhere, folder) },
	} {
		s := newShelf(t).put(shop, "c1", nil, "main")
		if err := prepare(filepath.Join(s.trees[shop+"@c1"], "environments")); err != nil {
			t.Fatal(err)
		}
		if files, err := s.resolver().EnvironmentFiles(t.Context(), shop, dayfly.Secret{}, "c1"); err != nil || len(files) != 0 {
			t.Errorf("%s: %v, %v", name, files, err)
		}
	}
}

func TestAFolderOrACommitThatCannotBeReadIsAnErrorAndNotEmpty(t *testing.T) {
	s := newShelf(t).put(shop, "c1", nil, "main")
	if _, err := s.resolver().EnvironmentFiles(t.Context(), shop, dayfly.Secret{}, "gone"); dayfly.ErrorCode(err) != dayfly.CodeNotFound {
		t.Errorf("a commit that is gone: %v", err)
	}
	folder := filepath.Join(s.trees[shop+"@c1"], "environments")
	if err := os.Mkdir(folder, 0); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // root may read everything: ask as somebody else
		for _, dir := range []string{filepath.Dir(folder), filepath.Dir(filepath.Dir(folder))} {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := syscall.Seteuid(65534); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := syscall.Seteuid(0); err != nil {
				t.Error(err)
			}
		}()
	}
	if files, err := s.resolver().EnvironmentFiles(t.Context(), shop, dayfly.Secret{}, "c1"); err == nil {
		t.Errorf("is %v: what runs of them would end", files)
	}
}

func TestAVersionStaysAtItsCommitAndLatestFollows(t *testing.T) {
	for _, c := range []struct {
		name, version string
		latest        bool   // whether a tag is called so, too
		first, second string // version=commit before and after everything has moved
	}{
		{"a tag that is moved", "v1", false, "v1=c1", "v1=c1"},
		{"a branch", "topic", false, "topic=c1", "topic=c1"},
		{"a commit", "c1", false, "c1=c1", "c1=c1"},
		{"latest, the default branch", "latest", false, "latest=c1", "latest=c2"},
		{"a tag called latest", "latest", true, "latest=c1", "latest=c2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refs := []string{"main", "v1", "topic"}
			if c.latest {
				refs = append(refs, "latest")
			}
			files := map[string]string{"Procfile": "web: ./server\n"}
			s := newShelf(t).put(shop, "c1", files, refs...)
			w := wish{EnvironmentSpec: dayfly.EnvironmentSpec{Services: []dayfly.ServiceSpec{{Name: "web", Version: c.version}}}}
			before := s.must(w)
			if got := versions(before); got != "web@"+c.first {
				t.Errorf("at first is %s", got)
			}
			s.put(shop, "c2", files, refs...)
			w.previous = before
			if got := versions(s.must(w)); got != "web@"+c.second {
				t.Errorf("then is %s", got)
			}
			w.Services[0].Version = "c2"
			if got := versions(s.must(w)); got != "web@c2=c2" {
				t.Errorf("with another version is %s", got)
			}
		})
	}
}
