package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/dayfly-dev/dayfly"
)

// checkOutput refuses what -o does not know.
func (c *command) checkOutput(cmd *cobra.Command) error {
	switch c.output {
	case "table", "json", "yaml":
		return nil
	case "envfile":
		if cmd.Name() == "details" {
			return nil
		}
	}
	return usagef("-o %s: use table, json or yaml", c.output)
}

// machine writes v as -o says and tells whether it did; with table the caller shows it.
func (c *command) machine(v any) (bool, error) {
	switch c.output {
	case "json":
		e := json.NewEncoder(c.Out)
		e.SetIndent("", "  ")
		return true, e.Encode(v)
	case "yaml":
		// By way of JSON, so that both have the same keys.
		b, err := json.Marshal(v)
		if err != nil {
			return true, err
		}
		var plain any
		if err := json.Unmarshal(b, &plain); err != nil {
			return true, err
		}
		b, err = yaml.Marshal(plain)
		if err != nil {
			return true, err
		}
		if c.documents > 0 {
			b = append([]byte("---\n"), b...)
		}
		c.documents++
		_, err = c.Out.Write(b)
		return true, err
	}
	return false, nil
}

// listOf is a list as the API answers it.
type listOf[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next"`
}

func asList[T any](l []T) listOf[T] {
	if l == nil {
		l = []T{}
	}
	return listOf[T]{Items: l}
}

// table writes rows under a head, aligned. Cells may have colours.
func table(w io.Writer, head []string, rows [][]string) {
	widths := make([]int, len(head))
	for i, h := range head {
		widths[i] = len(h)
	}
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], lipgloss.Width(cell))
		}
	}
	line := func(cells []string) {
		var b strings.Builder
		for i, cell := range cells {
			b.WriteString(cell)
			if i < len(cells)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-lipgloss.Width(cell)+3))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
	line(head)
	for _, row := range rows {
		line(row)
	}
}

// phase colours a phase.
func (c *command) phase(p dayfly.Phase) string {
	colours := map[dayfly.Phase]string{
		dayfly.PhaseReady: "2", dayfly.PhaseFailed: "1", dayfly.PhaseDegraded: "3",
		dayfly.PhaseBuilding: "6", dayfly.PhaseStarting: "6", dayfly.PhasePending: "6", dayfly.PhaseDeleting: "8",
	}
	if !c.Colour || colours[p] == "" {
		return string(p)
	}
	return lipgloss.NewStyle().Foreground(lipgloss.Color(colours[p])).Render(string(p))
}

// ago says how long ago a time is, or how long until it, in one unit.
func ago(t, now time.Time) string {
	d := now.Sub(t)
	sign := ""
	if d < 0 {
		d, sign = -d, "in "
	}
	var text string
	switch {
	case d < time.Minute:
		text = fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		text = fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		text = fmt.Sprintf("%dh", int(d.Hours()+0.5))
	default:
		text = fmt.Sprintf("%dd", int(d.Hours()/24+0.5))
	}
	return sign + text
}

func expires(e dayfly.Environment) string {
	if e.ExpiresAt == nil {
		return "never"
	}
	return ago(*e.ExpiresAt, time.Now())
}

func short(commit string) string { return commit[:min(10, len(commit))] }
