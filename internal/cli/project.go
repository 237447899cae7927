package cli

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dayfly-dev/dayfly"
)

func (c *command) projectCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "project", Short: "Add, list and remove projects", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error { return usagef("project: say add, list or remove") }}
	var repo, token string
	add := &cobra.Command{
		Use: "add NAME --repo URL", Short: "Add a project: a git repository with a project file", Args: args(cobra.ExactArgs(1)),
		Long: "Add a project. Its repository is read first, so that mistakes in the project file are seen at once.\n\n" + exitCodes,
		RunE: func(cmd *cobra.Command, names []string) error {
			if repo == "" {
				return usagef("project add: --repo is missing")
			}
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
			fmt.Fprintf(c.Out, "project %s added; create an environment with: dayfly create --project %s --branch BRANCH\n", p.Name, p.Name)
			return nil
		},
	}
	add.Flags().StringVar(&repo, "repo", "", "URL of the git repository")
	add.Flags().StringVar(&token, "github-token", "", "token for a private repository (better: $DAYFLY_GITHUB_TOKEN)")
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List projects", Args: args(cobra.NoArgs),
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
				rows[i] = []string{p.Name, p.Repo, ago(p.CreatedAt, time.Now())}
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
	cmd.AddCommand(add, list, remove)
	return cmd
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
