package cli

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dayfly-dev/dayfly"
)

func (c *command) projectCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "project", Short: "Add, list and remove projects", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return usagef("project: say add, list, show, events, hook or remove")
		}}
	var repo, token string
	add := &cobra.Command{
		Use: "add NAME [--repo URL]", Short: "Add a project: a git repository with a project file", Args: args(cobra.ExactArgs(1)),
		Long: "Add a project. Its repository is read first, so that mistakes in the project file are seen at once.\nWithout --repo it lives on this server alone: its branches are pushed to it.\n\n" + exitCodes,
		RunE: func(cmd *cobra.Command, names []string) error {
			p, created, err := c.client().CreateProject(cmd.Context(), dayfly.ProjectRequest{Name: names[0], Repo: repoURL(repo), Token: c.gitToken(token)})
			if err != nil {
				return err
			}
			if done, err := c.machine(p); done {
				return err
			}
			if !created {
				fmt.Fprintf(c.Out, "project %s is there already\n", p.Name)
				return nil
			}
			if repo == "" {
				fmt.Fprintf(c.Out, "project %s added; push to it with: git push %s BRANCH\n", p.Name, p.PushURL)
				return nil
			}
			fmt.Fprintf(c.Out, "project %s added; create an environment with: dayfly create --project %s --branch BRANCH\n", p.Name, p.Name)
			return nil
		},
	}
	add.Flags().StringVar(&repo, "repo", "", "URL of the git repository; without it the project lives on this server alone")
	add.Flags().StringVar(&token, "github-token", "", "token for a private repository (better: $DAYFLY_GITHUB_TOKEN)")
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List projects, also those that are there only by registered instances", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			projects, err := c.client().Projects(cmd.Context())
			if err != nil {
				return err
			}
			if done, err := c.machine(asList(projects)); done {
				return err
			}
			rows := make([][]string, len(projects))
			for i, p := range projects {
				rows[i] = []string{p.Name, cmp.Or(registeredOnly(p), p.Repo, p.PushURL), ago(p.CreatedAt, time.Now())}
			}
			table(c.Out, []string{"NAME", "REPOSITORY", "AGE"}, rows)
			return nil
		},
	}
	remove := &cobra.Command{
		Use: "remove NAME", Aliases: []string{"rm"}, Short: "Remove a project that has no environments", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			return c.client().DeleteProject(cmd.Context(), names[0])
		},
	}
	show := &cobra.Command{
		Use: "show NAME", Short: "Show a project", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			p, err := c.client().Project(cmd.Context(), names[0])
			if err != nil {
				return err
			}
			if done, err := c.machine(p); done {
				return err
			}
			for _, row := range [][2]string{
				{"name", p.Name}, {"is there", registeredOnly(p)}, {"repository", p.Repo}, {"push to", p.PushURL}, {"also in", strings.Join(p.Repos, " ")}, {"default", p.DefaultBranch},
				{"branches", strings.Join(p.Branches, " ")}, {"baseline", p.Baseline}, {"problem", p.Problem},
			} {
				if row[1] != "" {
					fmt.Fprintf(c.Out, "%-10s %s\n", row[0], row[1])
				}
			}
			return nil
		},
	}
	events := &cobra.Command{
		Use: "events NAME", Short: "Show which branches and files became no environment, and why", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			all, err := c.client().ProjectEvents(cmd.Context(), names[0])
			if err != nil {
				return err
			}
			if done, err := c.machine(asList(all)); done {
				return err
			}
			for _, e := range all {
				c.showEvent(e)
			}
			return nil
		},
	}
	hook := &cobra.Command{
		Use: "hook NAME", Short: "Make the secret that hooks of a project are signed with", Args: args(cobra.ExactArgs(1)),
		Long: "Make the secret that hooks are signed with which say that the project's repository has news. It is\nshown once, and the one before no longer counts.\n\n" + exitCodes,
		RunE: func(cmd *cobra.Command, names []string) error {
			url, secret, err := c.client().NewHookSecret(cmd.Context(), names[0])
			if err != nil {
				return err
			}
			if done, err := c.machine(map[string]string{"url": url, "secret": secret}); done {
				return err
			}
			fmt.Fprintf(c.Out, "url    %s\nsecret %s\n", url, secret)
			return nil
		},
	}
	cmd.AddCommand(add, list, show, events, hook, remove)
	return cmd
}

// registeredOnly says of a project that nobody has added by what it is there.
func registeredOnly(p dayfly.Project) string {
	switch p.Registered {
	case 0:
		return ""
	case 1:
		return "by 1 registered instance"
	}
	return fmt.Sprintf("by %d registered instances", p.Registered)
}

// repoURL makes a path absolute: the server has another folder than its client.
func repoURL(repo string) string {
	if strings.HasPrefix(repo, ".") {
		if absolute, err := filepath.Abs(repo); err == nil {
			return absolute
		}
	}
	return repo
}

// gitToken is the token for private repositories.
func (c *command) gitToken(flag string) dayfly.Secret {
	if flag == "" {
		flag = c.Getenv("DAYFLY_GITHUB_TOKEN")
	}
	return dayfly.NewSecret(flag)
}
