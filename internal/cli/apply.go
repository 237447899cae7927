package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"

	"github.com/spf13/cobra"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/spec"
)

// maxFile is the largest file that is read, in bytes.
const maxFile = 1 << 20

func (c *command) applyCommand() *cobra.Command {
	var files []string
	var w waiting
	cmd := &cobra.Command{
		Use: "apply -f FILE...", Short: "Make environments as their files say", Args: args(cobra.ArbitraryArgs),
		Long: "Make or change environments as their files say. All files are checked before any is applied.\n\n" + exitCodes,
		RunE: func(cmd *cobra.Command, more []string) error {
			files = append(files, more...)
			if len(files) == 0 {
				return usagef("apply: -f is missing")
			}
			var specs []dayfly.EnvironmentSpec
			var problems []dayfly.Problem
			for _, file := range files {
				found, err := readEnvironments(file)
				var e *dayfly.Error
				switch {
				case errors.As(err, &e):
					problems = append(problems, e.Problems...)
				case err != nil:
					return err
				}
				specs = append(specs, found...)
			}
			if len(problems) > 0 {
				return dayfly.Invalid(problems...)
			}
			applied := []dayfly.Environment{}
			for _, s := range specs {
				env, err := w.within(cmd.Context(), func(ctx context.Context) (dayfly.Environment, error) {
					return c.apply(ctx, s)
				})
				switch {
				case err != nil:
				case len(specs) == 1 || c.output == "table":
					err = c.settle(cmd.Context(), env, w)
				default:
					var there bool
					if env, there, err = c.settled(cmd.Context(), env, w); there {
						applied = append(applied, env)
					}
				}
				if err != nil {
					return errors.Join(err, c.showApplied(applied, len(specs)))
				}
			}
			return c.showApplied(applied, len(specs))
		},
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, "environment file")
	w.flags(cmd.Flags())
	return cmd
}

// showApplied prints what came of several files as one document.
func (c *command) showApplied(applied []dayfly.Environment, files int) error {
	if files == 1 || c.output == "table" {
		return nil // it has been shown
	}
	_, err := c.machine(asList(applied))
	return err
}

// attempts is how often an environment is applied whose life others change all the time.
const attempts = 5

// apply makes an environment, or changes the one that is there, unless somebody else has
// changed what was asked for since it was looked at: who comes last would undo that unseen.
func (c *command) apply(ctx context.Context, s dayfly.EnvironmentSpec) (dayfly.Environment, error) {
	api := c.client()
	before, revision, err := c.asked(ctx, s.Name)
	if err != nil {
		return dayfly.Environment{}, err
	}
	for try := 1; ; try++ {
		env, err := api.PutEnvironment(ctx, s, revision)
		if dayfly.ErrorCode(err) != dayfly.CodeConflict || revision == 0 || try == attempts {
			return env, err
		}
		now, next, again := c.asked(ctx, s.Name)
		switch {
		case again != nil:
			return env, again
		case next == revision:
			return env, err // another conflict
		case next == 0:
			return env, dayfly.Errorf(dayfly.CodeConflict, "environment %s was deleted by somebody else while it was applied: apply it again if it is still wanted", s.Name)
		case !reflect.DeepEqual(before, now):
			// Another one may have applied the same just then: that is no conflict at any revision.
			if env, err := api.PutEnvironment(ctx, s, revision); err == nil {
				return env, nil
			}
			return env, dayfly.Errorf(dayfly.CodeConflict, "environment %s was changed by somebody else while it was applied, and nothing was done: see what they did with `dayfly details %s`, and apply the file again to undo it", s.Name, s.Name)
		}
		revision = next // only how long it lives was changed
	}
}

// asked gives what is asked for an environment, with its revision; 0 = there is none to be
// changed, or it is going.
func (c *command) asked(ctx context.Context, name string) (spec dayfly.EnvironmentSpec, revision int64, err error) {
	api := c.client()
	for {
		env, err := api.Environment(ctx, name)
		if dayfly.ErrorCode(err) == dayfly.CodeNotFound || err == nil && env.Phase == dayfly.PhaseDeleting {
			return spec, 0, nil
		}
		if err != nil {
			return spec, 0, err
		}
		if env.Revision == revision {
			return spec, revision, nil // the same before and after
		}
		revision = env.Revision
		if spec, err = api.Spec(ctx, name); err != nil && dayfly.ErrorCode(err) != dayfly.CodeNotFound {
			return spec, 0, err
		}
	}
}

func readEnvironments(file string) ([]dayfly.EnvironmentSpec, error) {
	data, err := os.ReadFile(file)
	if err == nil && len(data) > maxFile {
		err = errors.New("is larger than 1 MiB")
	}
	if err != nil {
		return nil, dayfly.Invalid(dayfly.Problem{File: file, Message: err.Error()})
	}
	if spec.IsProjectFile(file, data) {
		return nil, dayfly.Invalid(dayfly.Problem{File: file, Message: "is a project file, and no environment file: " +
			"`dayfly project add REPOSITORY` adds its project, and `dayfly create --repo REPOSITORY --branch BRANCH` makes an environment of it"})
	}
	return spec.ParseEnvironmentFiles(file, data, spec.EnvironmentOptions{})
}

func (c *command) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check FILE...", Short: "Find what is wrong with project and environment files", Args: args(cobra.MinimumNArgs(1)),
		Long: "Check project files, Procfiles and environment files; no server is needed. All mistakes are\nshown at once, with file, line, column and field.\n\n" + exitCodes,
		RunE: func(_ *cobra.Command, files []string) error {
			problems := []dayfly.Problem{}
			for _, file := range files {
				var e *dayfly.Error
				switch err := spec.Check(file); {
				case errors.As(err, &e) && len(e.Problems) > 0:
					problems = append(problems, e.Problems...)
				case err != nil:
					problems = append(problems, dayfly.Problem{File: file, Message: err.Error()})
				}
			}
			done, err := c.machine(map[string]any{"problems": problems})
			if err != nil {
				return err
			}
			if len(problems) > 0 {
				if done {
					return &shown{dayfly.Invalid(problems...)}
				}
				for _, p := range problems {
					fmt.Fprintln(c.Err, p)
				}
				return &shown{dayfly.Invalid(problems...)}
			}
			if !done {
				fmt.Fprintln(c.Out, "nothing is wrong")
			}
			return nil
		},
	}
}
