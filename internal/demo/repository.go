package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	shop "github.com/dayfly-dev/dayfly/examples/shop"
)

// makeRepository makes the shop's repository: version 1 of the backend on main,
// version 2 on summer-sale. Where there are databases, it asks for one.
func (t *tour) makeRepository(ctx context.Context) error {
	if err := os.Mkdir(t.repo, 0o755); err != nil {
		return err
	}
	if err := t.git(ctx, "init", "--quiet", "--initial-branch=main"); err != nil {
		return err
	}
	for _, v := range []struct {
		version         int
		branch, message string
	}{{1, "main", "Open the shop"}, {2, "summer-sale", "Sell everything at half price"}} {
		if v.version > 1 {
			if err := t.git(ctx, "checkout", "--quiet", "-b", v.branch); err != nil {
				return err
			}
		}
		if err := shop.Write(t.repo, v.version); err != nil {
			return err
		}
		if t.databases {
			if err := shop.WriteDatabase(t.repo); err != nil {
				return err
			}
		}
		if err := t.git(ctx, "add", "--all"); err != nil {
			return err
		}
		if err := t.git(ctx, "commit", "--quiet", "--message", v.message); err != nil {
			return err
		}
	}
	return t.git(ctx, "checkout", "--quiet", "main")
}

// commit replaces a text of the backend and commits that.
func (t *tour) commit(ctx context.Context, old, text, message string) error {
	file := filepath.Join(t.repo, "backend", "version.go")
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(content), old, text, 1)), 0o644); err != nil {
		return err
	}
	return t.git(ctx, "commit", "--quiet", "--all", "--message", message)
}

func (t *tour) git(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...) //nolint:forbidigo // fixed arguments in a folder of ours
	cmd.Dir = t.repo
	cmd.Env = gitVariables()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git %s: %w: %s", args[0], err, out)
	}
	return nil
}
