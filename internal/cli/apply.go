package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

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
				s, err := readEnvironment(file)
				var e *dayfly.Error
				switch {
				case errors.As(err, &e):
					problems = append(problems, e.Problems...)
				case err != nil:
					return err
				}
				specs = append(specs, s)
			}
			if len(problems) > 0 {
				return dayfly.Invalid(problems...)
			}
			for _, s := range specs {
				env, err := w.within(cmd.Context(), func(ctx context.Context) (dayfly.Environment, error) {
					return c.client().PutEnvironment(ctx, s)
				})
				if err == nil {
					err = c.settle(cmd.Context(), env, w)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, "environment file")
	w.flags(cmd.Flags())
	return cmd
}

func readEnvironment(file string) (dayfly.EnvironmentSpec, error) {
	data, err := os.ReadFile(file)
	if err == nil && len(data) > maxFile {
		err = errors.New("is larger than 1 MiB")
	}
	if err != nil {
		return dayfly.EnvironmentSpec{}, dayfly.Invalid(dayfly.Problem{File: file, Message: err.Error()})
	}
	return spec.ParseEnvironmentFile(file, data)
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
