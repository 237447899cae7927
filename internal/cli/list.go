package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/spec"
)

func (c *command) listCommand() *cobra.Command {
	var project string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List environments", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := c.client().Environments(cmd.Context(), project)
			if err != nil {
				return err
			}
			if done, err := c.machine(asList(all)); done {
				return err
			}
			rows := make([][]string, len(all))
			for i, e := range all {
				rows[i] = []string{e.Name, e.Project, orDash(e.Branch), c.phase(e.Phase), ago(e.CreatedAt, time.Now()), expires(e), orDash(e.URL)}
			}
			table(c.Out, []string{"NAME", "PROJECT", "BRANCH", "PHASE", "AGE", "EXPIRES", "URL"}, rows)
			return nil
		},
	}
	cmd.Flags().StringVar(&project, "project", "", "environments of this project only")
	return cmd
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (c *command) detailsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "details NAME", Short: "Show an environment", Args: args(cobra.ExactArgs(1)), ValidArgsFunction: c.completeNames,
		Long: "Show an environment: its services, commits, addresses and what is wrong. With -o envfile as an\nenvironment file that makes it again.\n\n" + exitCodes,
		RunE: func(cmd *cobra.Command, names []string) error {
			if c.output == "envfile" {
				s, err := c.client().Spec(cmd.Context(), names[0])
				if err != nil {
					return err
				}
				_, err = c.Out.Write(spec.FormatEnvironmentFile(s))
				return err
			}
			env, err := c.client().Environment(cmd.Context(), names[0])
			if err != nil {
				return err
			}
			if done, err := c.machine(env); done {
				return err
			}
			c.showDetails(env)
			return nil
		},
	}
}

func (c *command) showDetails(e dayfly.Environment) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(c.Out, "%-10s %s\n", name, value)
		}
	}
	line("name", e.Name)
	line("project", e.Project)
	line("branch", e.Branch)
	if e.Frozen {
		line("follows", "nothing: it is frozen (dayfly unfreeze "+e.Name+")")
	}
	line("file", e.Origin)
	line("base", e.Base)
	line("phase", c.phase(e.Phase))
	line("message", e.Message)
	line("url", e.URL)
	line("created", e.CreatedAt.Local().Format(time.DateTime))
	if e.LastSeen != nil {
		line("last seen", e.LastSeen.Local().Format(time.DateTime))
	}
	line("expires", expires(e))
	if len(e.Databases) > 0 {
		line("databases", strings.Join(e.Databases, ", ")+" (dayfly db list --env "+e.Name+")")
	}
	fmt.Fprintln(c.Out)
	rows := make([][]string, len(e.Services))
	for i, s := range e.Services {
		rows[i] = []string{s.Name, orDash(s.Version), orDash(short(s.Commit)), provider(s, e.Name), c.phase(s.Phase), fmt.Sprint(s.Instances), orDash(s.URL)}
	}
	table(c.Out, []string{"SERVICE", "VERSION", "COMMIT", "FROM", "PHASE", "INSTANCES", "URL"}, rows)
	for _, m := range e.Missing {
		fmt.Fprintf(c.Out, "missing: %s %s since %s: %s\n", m.Service, m.Version, m.Since.Local().Format(time.DateTime), m.Doing)
	}
}

// provider says who has a service.
func provider(s dayfly.EnvironmentService, env string) string {
	if s.From == dayfly.FromBorrowed && s.Env != env {
		return "borrowed (" + s.Env + ")"
	}
	return string(s.From)
}

func (c *command) completeNames(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	all, err := c.client().Environments(cmd.Context(), "")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, e := range all {
		if strings.HasPrefix(e.Name, prefix) {
			names = append(names, e.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
