package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dayfly-dev/dayfly"
)

func (c *command) createCommand() *cobra.Command {
	var req dayfly.EnvironmentRequest
	var services, only []string
	var keep, token string
	var w waiting
	cmd := &cobra.Command{
		Use: "create [NAME] --project P | --repo URL [--branch B]", Short: "Create an environment of a branch", Args: args(cobra.MaximumNArgs(1)),
		Long: `Create an environment. It follows its branch until it is deleted or its time is over.
A branch or a file that does not exist leaves nothing behind.

  dayfly create --project shop --branch feature-x
  dayfly create --repo https://github.com/you/shop --branch main
  dayfly create demo --project shop --service backend=feature-x --keep 2d

` + exitCodes,
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) > 0 {
				req.Spec.Name = names[0]
			}
			if req.Spec.Project != "" && req.Repo != "" {
				return usagef("create: give --project or --repo, not both")
			}
			req.Repo = repoURL(req.Repo)
			req.Token = c.gitToken(token)
			req.Spec.Only = splitNames(only)
			for _, s := range services {
				spec, err := parseService(s)
				if err != nil {
					return err
				}
				req.Spec.Services = append(req.Spec.Services, spec)
			}
			if keep != "" {
				d, err := dayfly.ParseDuration(keep)
				if err != nil {
					return usagef("--keep: %w", err)
				}
				req.Spec.Keep = d
			}
			env, err := w.within(cmd.Context(), func(ctx context.Context) (dayfly.Environment, error) {
				env, _, err := c.client().CreateEnvironment(ctx, req)
				return env, err
			})
			if err != nil {
				return err
			}
			if req.DryRun {
				if done, err := c.machine(env); done {
					return err
				}
				c.showPlan(env)
				return nil
			}
			return c.settle(cmd.Context(), env, w)
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Spec.Project, "project", "", "project; may be left out where there is one only")
	f.StringVar(&req.Repo, "repo", "", "instead of --project: URL of a repository; its project is made on the fly")
	f.StringVar(&req.Spec.Branch, "branch", "", "branch to follow (the default branch)")
	f.StringArrayVar(&services, "service", nil, "another branch for one service: NAME=BRANCH or NAME=REPO#BRANCH")
	f.StringSliceVar(&only, "only", nil, "have these services only: NAME,...")
	f.StringVar(&req.Spec.Base, "base", "", "environment to borrow from, or none")
	f.StringVar(&keep, "keep", "", "life from the last change on, such as 36h or 5d")
	f.BoolVar(&req.DryRun, "dry-run", false, "show which services it would have of its own and why, and make nothing")
	f.BoolVar(&req.Pin, "pin", false, "stay at the commits of now, see freeze")
	f.BoolVar(&req.WithFixtures, "with-fixtures", false, "fill databases with the project's fixtures")
	f.StringVar(&token, "github-token", "", "token for private repositories (better: $DAYFLY_GITHUB_TOKEN)")
	w.flags(f)
	return cmd
}

// showPlan prints who would provide each service, and why.
func (c *command) showPlan(env dayfly.Environment) {
	fmt.Fprintf(c.Out, "%s would be at %s\n\n", env.Name, orDash(env.URL))
	rows := make([][]string, len(env.Services))
	for i, s := range env.Services {
		rows[i] = []string{s.Name, string(s.From), s.Env, orDash(s.Version), orDash(short(s.Commit)), orDash(s.Reason)}
	}
	table(c.Out, []string{"SERVICE", "FROM", "ENVIRONMENT", "VERSION", "COMMIT", "WHY"}, rows)
	for _, m := range env.Missing {
		fmt.Fprintf(c.Out, "missing: %s %s: %s\n", m.Service, m.Version, m.Doing)
	}
}

// parseService reads NAME=BRANCH or NAME=REPO#BRANCH.
func parseService(s string) (dayfly.ServiceSpec, error) {
	name, ref, ok := strings.Cut(s, "=")
	if !ok || name == "" || ref == "" {
		return dayfly.ServiceSpec{}, usagef("--service %s: write NAME=BRANCH or NAME=REPO#BRANCH", s)
	}
	spec := dayfly.ServiceSpec{Name: name, Branch: ref}
	// A branch may have a # in its name; a repository has a : or a / before it.
	if i := strings.LastIndex(ref, "#"); i > 0 && (strings.Contains(ref[:i], ":") || strings.HasPrefix(ref, "/") || strings.HasPrefix(ref, ".")) {
		spec.Repo, spec.Branch = repoURL(ref[:i]), ref[i+1:]
	}
	return spec, nil
}

func splitNames(lists []string) (names []string) {
	for _, l := range lists {
		for name := range strings.SplitSeq(l, ",") {
			if name = strings.TrimSpace(name); name != "" {
				names = append(names, name)
			}
		}
	}
	return names
}

const defaultTimeout = 10 * time.Minute
