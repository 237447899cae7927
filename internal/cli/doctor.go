package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/dayfly-dev/dayfly"
)

func (c *command) doctorCommand() *cobra.Command {
	var data string
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for what keeps dayfly from working well", Args: args(cobra.NoArgs),
		Long: `Look for everything that keeps dayfly from working well, and say what to do about it: ports, git,
permissions, disk, clock, DNS, and what belongs to nothing any more. The server examines its host; where
none answers, this one is examined for a server with the given data folder. Nothing is changed. Exit
code 1 when something is wrong.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings, err := c.client().Doctor(cmd.Context())
			if dayfly.ErrorCode(err) == dayfly.CodeUnavailable {
				findings, err = append([]dayfly.Finding{{
					Check: "server", Message: err.Error(), Advice: "start one with: dayfly server",
				}}, examine(cmd.Context(), data)...), nil
			}
			if err != nil {
				return err
			}
			wrong := 0
			for _, f := range findings {
				if !f.OK {
					wrong++
				}
			}
			var failure error
			if wrong > 0 {
				failure = &shown{dayfly.Errorf(dayfly.CodeFailed, "%d things are wrong", wrong)}
			}
			if done, err := c.machine(asList(findings)); done {
				if err != nil {
					return err
				}
				return failure
			}
			for _, f := range findings {
				mark := "ok"
				if !f.OK {
					mark = "WRONG"
				}
				fmt.Fprintf(c.Out, "%-6s %s: %s\n", mark, f.Check, f.Message)
				if f.Advice != "" && !f.OK {
					fmt.Fprintf(c.Out, "       -> %s\n", f.Advice)
				}
			}
			return failure
		},
	}
	cmd.Flags().StringVar(&data, "data", defaultData(), "data folder of a server that does not run")
	return cmd
}
