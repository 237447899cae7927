package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dayfly-dev/dayfly"
)

func (c *command) doctorCommand() *cobra.Command {
	var data string
	var retire bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for what keeps dayfly from working well", Args: args(cobra.NoArgs),
		Long: `Look for everything that keeps dayfly from working well, and say what to do about it: ports, git,
permissions, disk, clock, DNS, and what belongs to nothing any more. The server examines its host; where
none answers, this one is examined for a server with the given data folder. Nothing is changed. Exit
code 1 when something is wrong.

With --retire it shows instead what nobody needs now and what goes by itself: when and why, or what
keeps it. Nothing is taken away by that, either. Exit code 1 when something should have gone by now.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if retire {
				return c.showDepartures(cmd.Context())
			}
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
	cmd.Flags().BoolVar(&retire, "retire", false, "show what would go by itself, when and why")
	return cmd
}

// showDepartures shows what goes by itself.
func (c *command) showDepartures(ctx context.Context) error {
	list, err := c.client().Departures(ctx)
	if err != nil {
		return err
	}
	var failure error
	if late := len(slices.DeleteFunc(slices.Clone(list), func(d dayfly.Departure) bool { return !d.Overdue })); late > 0 {
		failure = &shown{dayfly.Errorf(dayfly.CodeFailed, "%d things should have gone by now", late)}
	}
	if done, err := c.machine(asList(list)); done {
		if err != nil {
			return err
		}
		return failure
	}
	if len(list) == 0 {
		fmt.Fprintln(c.Out, "Nothing would go: all that is there is needed.")
		return nil
	}
	c.departures(list, time.Now())
	return failure
}

// departures writes a row for each, one for all of a kind that there may be very many of, and below
// what makes them go.
func (c *command) departures(list []dayfly.Departure, now time.Time) {
	type row struct {
		dayfly.Departure
		count int
	}
	var rows []row
	var hows []string
	kinds := map[string][]string{} // by how
	for _, d := range list {
		if kinds[d.How] == nil {
			hows = append(hows, d.How)
		}
		if !slices.Contains(kinds[d.How], d.Kind) {
			kinds[d.How] = append(kinds[d.How], d.Kind)
		}
		if d.Bytes > 0 && d.At == nil {
			if i := slices.IndexFunc(rows, func(r row) bool { return r.Kind == d.Kind && r.count > 0 }); i >= 0 {
				rows[i].count++
				rows[i].Bytes += d.Bytes
				if rows[i].Since != nil && d.Since != nil && d.Since.Before(*rows[i].Since) {
					rows[i].Since = d.Since
				}
				continue
			}
			rows = append(rows, row{d, 1})
			continue
		}
		rows = append(rows, row{d, 0})
	}
	cells := make([][]string, len(rows))
	for i, r := range rows {
		goes, since, name := "-", "-", r.Name
		if r.At != nil {
			goes = ago(*r.At, now)
			if !r.At.After(now) {
				goes = "now"
			}
		}
		if r.Overdue {
			goes = "OVERDUE"
		}
		if r.Since != nil {
			since = ago(*r.Since, now)
		}
		switch {
		case r.count > 0:
			name = fmt.Sprintf("%d, %s", r.count, dayfly.Size(r.Bytes))
		case r.Env != "" && r.Env != r.Name:
			name += " of " + r.Env
		case r.Project != "":
			name += " of " + r.Project
		}
		cells[i] = []string{goes, r.Kind, name, since, r.Reason}
	}
	table(c.Out, []string{"GOES", "KIND", "NAME", "SINCE", "WHY"}, cells)
	fmt.Fprintln(c.Out)
	for _, how := range hows {
		fmt.Fprintf(c.Out, "%s: %s\n", strings.Join(kinds[how], ", "), how)
	}
}
