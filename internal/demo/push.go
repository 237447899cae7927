package demo

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/dayfly-dev/dayfly"
)

// pushedBranch is the branch that the tour pushes.
const pushedBranch = "winter"

// push makes a branch with one commit and pushes it to the server's own repository of the
// shop: no command of dayfly is needed for its environment.
func (t *tour) push(ctx context.Context) error {
	if err := t.git(ctx, "checkout", "--quiet", "-b", pushedBranch, "main"); err != nil {
		return err
	}
	err := t.commit(ctx, "Everything for a life", "Warm things for a life", "Sell warm things")
	if err != nil {
		return err
	}
	url := t.server + "/git/shop.git"
	t.command(fmt.Sprintf("git push %s %s", url, pushedBranch))
	address, err := t.pushed(ctx, "push", "--quiet", url, pushedBranch)
	if err != nil {
		return err
	}
	_, host, _ := strings.Cut(address, "://")
	host, _, _ = strings.Cut(host, ":")
	page, err := t.page(ctx, host)
	if err != nil {
		return err
	}
	if !strings.Contains(page, "Warm things") {
		return dayfly.Errorf(dayfly.CodeFailed, "%s does not show what was pushed", address)
	}
	return t.git(ctx, "checkout", "--quiet", "main")
}

// pushed runs git push, shows what the server says of it, and gives the address that it ends
// with.
func (t *tour) pushed(ctx context.Context, args ...string) (address string, err error) {
	cmd := exec.CommandContext(ctx, "git", args...) //nolint:forbidigo // fixed arguments in a folder of ours
	cmd.Dir, cmd.Env = t.repo, gitVariables()
	said, err := cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	last := "" // what git says where it fails
	for lines := bufio.NewScanner(said); lines.Scan(); {
		// git fills lines of others up with spaces, for what may stand there in a terminal.
		line := strings.TrimRight(lines.Text(), " ")
		last = line
		if strings.HasPrefix(line, "remote: ") {
			t.say("  %s", line)
		}
		if _, url, ok := strings.Cut(line, " is ready: "); ok {
			address = strings.TrimSpace(url)
		}
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("git push: %w: %s", err, last)
	}
	if address == "" {
		return "", dayfly.Errorf(dayfly.CodeFailed, "the push ended without an address: %s", last)
	}
	return address, nil
}

// gitVariables keep what the user has configured out of the demo.
func gitVariables() []string {
	return append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=dayfly demo", "GIT_AUTHOR_EMAIL=demo@localhost",
		"GIT_COMMITTER_NAME=dayfly demo", "GIT_COMMITTER_EMAIL=demo@localhost")
}
