package cli

import (
	"fmt"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"github.com/dayfly-dev/dayfly"
)

func (c *command) logsCommand() *cobra.Command {
	var q dayfly.LogQuery
	var since string
	cmd := &cobra.Command{
		Use: "logs NAME [SERVICE]", Short: "Show what an environment's services printed", Args: args(cobra.RangeArgs(1, 2)), ValidArgsFunction: c.completeNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) > 1 {
				q.Service = names[1]
			}
			if since != "" {
				d, err := dayfly.ParseDuration(since)
				if err != nil {
					return usagef("--since: %w", err)
				}
				q.Since = time.Now().Add(-time.Duration(d))
			}
			lines := []dayfly.LogLine{}
			for line, err := range c.client().Logs(cmd.Context(), names[0], q) {
				if err != nil {
					return err
				}
				switch {
				case c.output == "table":
					fmt.Fprintln(c.Out, c.logLine(line, q.Service == ""))
				case q.Follow:
					if _, err := c.machine(line); err != nil {
						return err
					}
				default:
					lines = append(lines, line)
				}
			}
			if c.output != "table" && !q.Follow {
				_, err := c.machine(asList(lines))
				return err
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&q.Follow, "follow", "f", false, "go on with what is printed from now on")
	f.StringVar(&since, "since", "", "lines of the last 1h, 5m, ... only")
	f.IntVar(&q.Tail, "tail", 0, "at most so many old lines of each deployment")
	f.BoolVar(&q.Deleted, "deleted", false, "of an environment that is gone")
	return cmd
}

func (c *command) logLine(l dayfly.LogLine, withService bool) string {
	prefix := ""
	if withService {
		prefix = l.Service
	}
	if l.Source == "build" {
		prefix += "[build]"
	}
	if prefix == "" {
		return l.Line
	}
	if c.Colour {
		prefix = lipgloss.NewStyle().Foreground(lipgloss.Color("6")).Render(prefix)
	}
	return prefix + " " + l.Line
}

func (c *command) eventsCommand() *cobra.Command {
	var o dayfly.EventOptions
	cmd := &cobra.Command{
		Use: "events NAME", Short: "Show what happened to an environment", Args: args(cobra.ExactArgs(1)), ValidArgsFunction: c.completeNames,
		RunE: func(cmd *cobra.Command, names []string) error {
			events := []dayfly.Event{}
			for e, err := range c.client().Events(cmd.Context(), names[0], o) {
				if err != nil {
					return err
				}
				switch {
				case c.output == "table":
					c.showEvent(e)
				case o.Follow:
					if _, err := c.machine(e); err != nil {
						return err
					}
				default:
					events = append(events, e)
				}
			}
			if c.output != "table" && !o.Follow {
				_, err := c.machine(asList(events))
				return err
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&o.Follow, "follow", "f", false, "go on with what happens from now on")
	cmd.Flags().BoolVar(&o.Deleted, "deleted", false, "of an environment that is gone")
	return cmd
}

func (c *command) showEvent(e dayfly.Event) {
	message := e.Message
	if e.Cause != "" {
		message += " (" + e.Cause + ")"
	}
	if c.Colour && e.Kind != dayfly.EventStep {
		message = lipgloss.NewStyle().Foreground(lipgloss.Color("1")).Render(message)
	}
	fmt.Fprintf(c.Out, "%s  %s\n", e.Time.Local().Format(time.DateTime+".000"), message)
	for _, l := range e.Log {
		fmt.Fprintln(c.Out, "    | "+l)
	}
}
