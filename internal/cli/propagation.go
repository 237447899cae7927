package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dayfly-dev/dayfly"
)

func (c *command) propagationCommand() *cobra.Command {
	return &cobra.Command{
		Use: "propagation NAME", Short: "Show which services do not hand on for which environment a request is", Args: args(cobra.ExactArgs(1)), ValidArgsFunction: c.completeNames,
		Long: `Show who called whom for an environment, what told that the calls are for it, and which services
do not hand that on, so that their calls go to another environment. The numbers are those of one
server since it started.

` + exitCodes,
		RunE: func(cmd *cobra.Command, names []string) error {
			p, err := c.client().Propagation(cmd.Context(), names[0])
			if err != nil {
				return err
			}
			if done, err := c.machine(p); done {
				return err
			}
			c.showPropagation(p)
			return nil
		},
	}
}

func (c *command) showPropagation(p dayfly.Propagation) {
	fmt.Fprintf(c.Out, "requests for %s, as server %s counts them since %s\n\n", p.Environment, p.Server, p.Since.Local().Format(time.DateTime))
	rows := make([][]string, len(p.Called))
	for i, s := range p.Called {
		from := orDash(string(s.From))
		if s.From == dayfly.FromBorrowed {
			from += " (" + s.Env + ")"
		}
		rows[i] = []string{s.Service, from, fmt.Sprint(s.Requests)}
	}
	table(c.Out, []string{"SERVICE", "FROM", "CALLED"}, rows)
	fmt.Fprintln(c.Out)
	c.showCalls(p.Calls)
	if len(p.Unattributed) > 0 {
		fmt.Fprintf(c.Out, "\ncarried nothing while requests for several environments of %s were answered:\n", p.Project)
		c.showCalls(p.Unattributed)
	}
	fmt.Fprintln(c.Out)
	for _, d := range p.Dropped {
		mark := "weak"
		switch {
		case d.Lost:
			mark = "LOST"
		case d.Perhaps:
			mark = "lost?"
		}
		fmt.Fprintf(c.Out, "%-6s %s\n       -> %s\n", mark, d.Message, d.Advice)
	}
	if len(p.Dropped) == 0 {
		fmt.Fprintln(c.Out, "ok     no call that was seen has gone to another environment")
	}
	fmt.Fprintln(c.Out, "\nnot seen:")
	for _, line := range p.Unseen {
		fmt.Fprintf(c.Out, "- %s\n", line)
	}
}

func (c *command) showCalls(calls []dayfly.Calls) {
	rows := make([][]string, len(calls))
	for i, n := range calls {
		rows[i] = []string{orDash(strings.Join(n.From, "|")), n.To, n.Env}
		for _, count := range []uint64{n.Total, n.Header, n.Baggage, n.Host, n.Trace, n.Source, n.Address, n.Baseline} {
			rows[i] = append(rows[i], fmt.Sprint(count))
		}
	}
	table(c.Out, []string{"FROM", "TO", "OF", "CALLS", "HEADER", "BAGGAGE", "HOST", "TRACE", "SOURCE", "ADDRESS", "NOTHING"}, rows)
}
