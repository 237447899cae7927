package cli

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dayfly-dev/dayfly"
)

func (c *command) openCommand() *cobra.Command {
	return &cobra.Command{
		Use: "open NAME", Short: "Open an environment in the browser", Args: args(cobra.ExactArgs(1)), ValidArgsFunction: c.completeNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			env, err := c.client().Environment(cmd.Context(), names[0])
			if err != nil {
				return err
			}
			if env.URL == "" && len(env.URLs) == 0 {
				return dayfly.Errorf(dayfly.CodeNotFound, "environment %s has no public address: no service has a port that speaks HTTP", env.Name)
			}
			if done, err := c.machine(env); err != nil {
				return err
			} else if !done {
				c.showAddresses(env)
			}
			if env.URL != "" {
				browse(cmd.Context(), env.URL)
			}
			return nil
		},
	}
}

// browse opens a URL where there is a browser; the address has been printed already.
func browse(ctx context.Context, url string) {
	if !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
		return
	}
	name, args := "xdg-open", []string{url}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", url}
	}
	if path, err := exec.LookPath(name); err == nil {
		_ = exec.CommandContext(ctx, path, args...).Run() //nolint:forbidigo // a fixed program and a URL
	}
}

func (c *command) extendCommand() *cobra.Command {
	return &cobra.Command{
		Use: "extend NAME DURATION", Short: "Let an environment live at least so long from now", Args: args(cobra.ExactArgs(2)), ValidArgsFunction: c.completeNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			d, err := dayfly.ParseDuration(names[1])
			if err != nil {
				return usagef("extend: %w", err)
			}
			env, err := c.client().ExtendEnvironment(cmd.Context(), names[0], d)
			if err != nil {
				return err
			}
			if done, err := c.machine(env); done {
				return err
			}
			if env.ExpiresAt == nil {
				fmt.Fprintf(c.Out, "%s never expires\n", env.Name)
				return nil
			}
			fmt.Fprintf(c.Out, "%s expires at %s\n", env.Name, env.ExpiresAt.Local().Format(time.DateTime))
			return nil
		},
	}
}

func (c *command) freezeCommand() *cobra.Command {
	return c.followingCommand("freeze", "Let environments stay as they are, whatever is pushed", "frozen", true)
}

func (c *command) unfreezeCommand() *cobra.Command {
	return c.followingCommand("unfreeze", "Let frozen environments follow their branches again", "following its branches", false)
}

func (c *command) followingCommand(use, short, done string, frozen bool) *cobra.Command {
	return &cobra.Command{
		Use: use + " NAME...", Short: short, Args: args(cobra.MinimumNArgs(1)), ValidArgsFunction: c.completeNames,
		Long: short + ".\nA frozen environment also stays when its branch is deleted; its time goes on.\n\n" + exitCodes,
		RunE: func(cmd *cobra.Command, names []string) error {
			var all error
			changed := []dayfly.Environment{}
			for _, name := range names {
				env, err := c.client().FreezeEnvironment(cmd.Context(), name, frozen)
				if err != nil {
					all = errors.Join(all, err)
					continue
				}
				changed = append(changed, env)
			}
			if machine, err := c.machine(asList(changed)); machine {
				return errors.Join(all, err)
			}
			for _, env := range changed {
				fmt.Fprintf(c.Out, "%s is %s\n", env.Name, done)
			}
			return all
		},
	}
}

func (c *command) deleteCommand() *cobra.Command {
	var force bool
	var w waiting
	cmd := &cobra.Command{
		Use: "delete NAME...", Aliases: []string{"rm"}, Short: "Delete environments with everything that they made", Args: args(cobra.MinimumNArgs(1)), ValidArgsFunction: c.completeNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			return deleteAll(c, w, names,
				func(name string) (dayfly.Environment, error) {
					return c.client().DeleteEnvironment(cmd.Context(), name, force)
				},
				func(env dayfly.Environment) (dayfly.Environment, error) {
					return c.watch(cmd.Context(), env, w.timeout, func(dayfly.Environment) bool { return false })
				})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also when others borrow from it, or it belongs to a file; gives up what a server that is not there has of it")
	w.flags(cmd.Flags())
	return cmd
}

// deleteAll begins to delete what the names say, and then waits until each is gone, unless that is not
// wanted. One that fails keeps none of the others.
func deleteAll[T any](c *command, w waiting, names []string, begin func(name string) (T, error), end func(T) (T, error)) error {
	var all error
	going := []T{}
	for _, name := range names {
		one, err := begin(name)
		if err != nil {
			all = errors.Join(all, err)
			continue
		}
		going = append(going, one)
	}
	for i, one := range going {
		if w.noWait || !w.wait {
			break
		}
		last, err := end(one)
		if err != nil && dayfly.ErrorCode(err) != dayfly.CodeNotFound {
			all = errors.Join(all, err)
		}
		going[i] = last
	}
	if done, err := c.machine(asList(going)); done {
		return errors.Join(all, err)
	}
	return all
}

func (c *command) testCommand() *cobra.Command {
	return &cobra.Command{
		Use: "test NAME [JOB]", Short: "Run a test job of the project against an environment", Args: args(cobra.RangeArgs(1, 2)), ValidArgsFunction: c.completeNames,
		Long: "Run a service with x-dayfly.test: true to its end. It gets the environment's address as URL; exit\ncode 0 passes.\n\n" + exitCodes,
		RunE: func(cmd *cobra.Command, names []string) error {
			job := ""
			if len(names) > 1 {
				job = names[1]
			}
			if c.Terminal {
				p := c.newProgress("testing " + names[0])
				defer p.end()
			}
			run, err := c.client().Test(cmd.Context(), names[0], job)
			if err != nil {
				return err
			}
			var failure error
			if run.Phase != "passed" {
				failure = &shown{dayfly.Errorf(dayfly.CodeFailed, "the test failed")}
			}
			if done, err := c.machine(run); done {
				return errors.Join(err, failure)
			}
			for _, l := range run.Log {
				fmt.Fprintln(c.Out, l)
			}
			fmt.Fprintf(c.Out, "%s %s after %s %s\n", run.Job, run.Phase, run.EndedAt.Sub(run.StartedAt).Round(time.Millisecond), run.Message)
			return failure
		},
	}
}

func (c *command) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"version": c.version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
			if done, err := c.machine(v); done {
				return err
			}
			fmt.Fprintf(c.Out, "dayfly %s (%s, %s)\n", c.version, v["go"], v["platform"])
			return nil
		},
	}
}
