package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dayfly-dev/dayfly"
)

const exitCodes = `Exit codes: 0 done, 1 failed, 2 wrong usage or invalid input, 3 not found, 4 not allowed,
5 server unreachable, 6 timed out, 7 conflict.`

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// shown is an error that the user has been told of already.
type shown struct{ error }

func (e *shown) Unwrap() error { return e.error }

// exit tells the user of an error of a command, by its path, and gives the exit code.
func (c *command) exit(path string, err error) int {
	if err == nil {
		return 0
	}
	var usage *usageError
	var told *shown
	var command *ended
	switch {
	case errors.As(err, &command):
		return command.code
	case errors.As(err, &told):
	case errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown command"):
		fmt.Fprintf(c.Err, "dayfly: %v\nSee %s --help.\n", err, path)
		return 2
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(c.Err, "interrupted")
	default:
		fmt.Fprintf(c.Err, "dayfly: %v\n", err)
	}
	switch dayfly.ErrorCode(err) {
	case dayfly.CodeInvalid:
		return 2
	case dayfly.CodeNotFound:
		return 3
	case dayfly.CodeUnauthorized, dayfly.CodeForbidden:
		return 4
	case dayfly.CodeUnavailable:
		return 5
	case dayfly.CodeTimeout:
		return 6
	case dayfly.CodeConflict:
		return 7
	default:
		return 1
	}
}

// args checks how many arguments a command got, as wrong usage.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{fmt.Errorf("%s: %w", cmd.CommandPath(), err)}
		}
		return nil
	}
}
