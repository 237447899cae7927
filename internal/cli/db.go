package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dayfly-dev/dayfly"
)

func (c *command) dbCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "db", Short: "Databases of one's own, as copies of templates", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return usagef("db: say create, list, show, url, extend, reset or delete")
		},
	}
	cmd.AddCommand(c.dbCreateCommand(), c.dbListCommand(), c.dbShowCommand(), c.dbURLCommand(), c.dbExtendCommand(), c.dbResetCommand(), c.dbDeleteCommand())
	return cmd
}

func (c *command) dbCreateCommand() *cobra.Command {
	var req dayfly.DatabaseRequest
	var keep string
	var w waiting
	cmd := &cobra.Command{
		Use: "create [NAME]", Short: "Create a database", Args: args(cobra.MaximumNArgs(1)),
		Long: `Create a database: a copy of a template, or of another database, that takes connections at once
and no disk until it is written to. It prints its address.

  psql "$(dayfly db create)"
  dayfly db create --template shop --keep 1d
  dayfly db create --from shop-k3x9ab

` + exitCodes,
		RunE: func(cmd *cobra.Command, names []string) error {
			if len(names) > 0 {
				req.Name = names[0]
			}
			if keep != "" {
				d, err := dayfly.ParseDuration(keep)
				if err != nil {
					return usagef("--keep: %w", err)
				}
				if d == 0 {
					return usagef("--keep: has to be longer than nothing")
				}
				req.Keep = d
			}
			d, err := c.client().CreateDatabase(cmd.Context(), req)
			if err != nil {
				return err
			}
			return c.settleDatabase(cmd.Context(), d, w)
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Template, "template", "", "template to copy; may be left out where there is one only")
	f.StringVar(&req.From, "from", "", "database to copy, instead of a template")
	f.StringVar(&keep, "keep", "", "how long it lives, such as 36h or 1d")
	_ = cmd.RegisterFlagCompletionFunc("template", c.completeTemplates)
	_ = cmd.RegisterFlagCompletionFunc("from", c.completeDatabases)
	w.flags(f)
	return cmd
}

// settleDatabase waits until a database is ready or has failed, and shows it.
func (c *command) settleDatabase(ctx context.Context, d dayfly.Database, w waiting) error {
	var failure error
	if !w.noWait && w.wait {
		var err error
		if d, err = c.watchDatabase(ctx, d, w, dayfly.Database.Settled); err != nil {
			return err
		}
		if d.Status == dayfly.DatabaseFailed {
			failure = &shown{dayfly.Errorf(dayfly.CodeFailed, "database %s: %s", d.Name, d.Message)}
			fmt.Fprintf(c.Err, "database %s has failed: %s\n", d.Name, d.Message)
		}
	}
	if done, err := c.machine(d); done {
		return errors.Join(err, failure)
	}
	if failure == nil {
		fmt.Fprintln(c.Out, d.URL)
	}
	return failure
}

// watchDatabase waits until done says so of a database, it is gone, or the time is over.
func (c *command) watchDatabase(ctx context.Context, d dayfly.Database, w waiting, done func(dayfly.Database) bool) (dayfly.Database, error) {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	if done(d) {
		return d, nil
	}
	progress := c.newProgress("database " + d.Name + " " + string(d.Status))
	defer progress.end()
	ask := c.client().WaitDatabase
	for {
		begun := time.Now()
		now, err := ask(ctx, d.ID)
		switch {
		case err != nil && ctx.Err() != nil && outer.Err() == nil:
			return d, dayfly.Errorf(dayfly.CodeTimeout, "database %s is still %s after %s: %s", d.Name, d.Status, w.timeout, d.Message)
		case err != nil:
			return d, err
		}
		if d = now; done(d) {
			return d, nil
		}
		if time.Since(begun) < askAgain { // such as one that is going and had been ready
			select {
			case <-ctx.Done():
			case <-time.After(askAgain):
			}
		}
	}
}

// askAgain is how often what does not tell by itself is asked.
const askAgain = 100 * time.Millisecond

func (c *command) dbListCommand() *cobra.Command {
	var filter dayfly.DatabaseFilter
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List databases", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.client().Databases(cmd.Context(), filter)
			if err != nil {
				return err
			}
			if done, err := c.machine(asList(list)); done {
				return err
			}
			rows := make([][]string, len(list))
			for i, d := range list {
				end := "never"
				switch {
				case d.ExpiresAt != nil:
					end = ago(*d.ExpiresAt, time.Now())
				case d.Environment != "":
					end = "with it"
				}
				rows[i] = []string{d.Name, string(d.Status), d.Template, orDash(d.Environment), fmt.Sprintf("%s:%d", d.Host, d.Port), size(d.SizeBytes), size(d.OwnBytes), end}
			}
			table(c.Out, []string{"NAME", "STATUS", "TEMPLATE", "ENVIRONMENT", "ADDRESS", "SIZE", "OWN", "EXPIRES"}, rows)
			return nil
		},
	}
	cmd.Flags().StringVar(&filter.Environment, "env", "", "those of an environment")
	cmd.Flags().StringVar(&filter.Template, "template", "", "those made from a template")
	_ = cmd.RegisterFlagCompletionFunc("env", c.completeNames)
	_ = cmd.RegisterFlagCompletionFunc("template", c.completeTemplates)
	return cmd
}

// size writes bytes as people read them.
func size(bytes *int64) string {
	if bytes == nil {
		return "-"
	}
	n, units := float64(*bytes), []string{"B", "KB", "MB", "GB", "TB"}
	for len(units) > 1 && n >= 1000 {
		n, units = n/1000, units[1:]
	}
	if units[0] == "B" || n >= 100 {
		return fmt.Sprintf("%.0f %s", n, units[0])
	}
	return fmt.Sprintf("%.1f %s", n, units[0])
}

func (c *command) dbShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a database", Args: args(cobra.ExactArgs(1)), ValidArgsFunction: onlyFirst(c.completeDatabases),
		RunE: func(cmd *cobra.Command, names []string) error {
			d, err := c.client().Database(cmd.Context(), names[0])
			if err != nil {
				return err
			}
			if done, err := c.machine(d); done {
				return err
			}
			line := func(name, value string) {
				if value != "" {
					fmt.Fprintf(c.Out, "%-13s %s\n", name, value)
				}
			}
			line("name", d.Name)
			line("id", d.ID)
			line("status", strings.TrimSpace(string(d.Status)+" "+d.Message))
			line("url", d.URL)
			line("template", fmt.Sprintf("%s, version %d", d.Template, d.Version))
			line("copy of", d.From)
			line("environment", d.Environment)
			line("size", size(d.SizeBytes)+", "+size(d.OwnBytes)+" its own")
			line("created", ago(d.CreatedAt, time.Now())+" ago")
			if d.ExpiresAt != nil {
				line("expires", ago(*d.ExpiresAt, time.Now()))
			}
			return nil
		},
	}
}

func (c *command) dbURLCommand() *cobra.Command {
	return &cobra.Command{
		Use: "url NAME", Short: "Print the address of a database, with its password", Args: args(cobra.ExactArgs(1)), ValidArgsFunction: onlyFirst(c.completeDatabases),
		RunE: func(cmd *cobra.Command, names []string) error {
			d, err := c.client().Database(cmd.Context(), names[0])
			if err != nil {
				return err
			}
			if done, err := c.machine(map[string]string{"url": d.URL}); done {
				return err
			}
			fmt.Fprintln(c.Out, d.URL)
			return nil
		},
	}
}

func (c *command) dbExtendCommand() *cobra.Command {
	return &cobra.Command{
		Use: "extend NAME DURATION", Short: "Let a database live at least so long from now", Args: args(cobra.ExactArgs(2)), ValidArgsFunction: onlyFirst(c.completeDatabases),
		Long: "Let a database live at least so long from now. It never makes a life shorter.\n\n  dayfly db extend shop-k3x9ab 2d\n\n" + exitCodes,
		RunE: func(cmd *cobra.Command, names []string) error {
			by, err := dayfly.ParseDuration(names[1])
			if err != nil {
				return usagef("extend: %w", err)
			}
			d, err := c.client().ExtendDatabase(cmd.Context(), names[0], by)
			if err != nil {
				return err
			}
			if done, err := c.machine(d); done {
				return err
			}
			if d.ExpiresAt == nil {
				fmt.Fprintf(c.Out, "%s never expires\n", d.Name)
				return nil
			}
			fmt.Fprintf(c.Out, "%s expires at %s\n", d.Name, d.ExpiresAt.Local().Format(time.DateTime))
			return nil
		},
	}
}

func (c *command) dbResetCommand() *cobra.Command {
	var w waiting
	cmd := &cobra.Command{
		Use: "reset NAME", Short: "Bring a database back to what it was made from, at the same address", Args: args(cobra.ExactArgs(1)), ValidArgsFunction: onlyFirst(c.completeDatabases),
		RunE: func(cmd *cobra.Command, names []string) error {
			d, err := c.client().ResetDatabase(cmd.Context(), names[0])
			if err != nil {
				return err
			}
			return c.settleDatabase(cmd.Context(), d, w)
		},
	}
	w.flags(cmd.Flags())
	return cmd
}

func (c *command) dbDeleteCommand() *cobra.Command {
	var force bool
	var w waiting
	cmd := &cobra.Command{
		Use: "delete NAME...", Aliases: []string{"rm"}, Short: "Delete databases", Args: args(cobra.MinimumNArgs(1)), ValidArgsFunction: c.completeDatabases,
		RunE: func(cmd *cobra.Command, names []string) error {
			return deleteAll(c, w, names,
				func(name string) (dayfly.Database, error) {
					return c.client().DeleteDatabase(cmd.Context(), name, force)
				},
				func(d dayfly.Database) (dayfly.Database, error) {
					return c.watchDatabase(cmd.Context(), d, w, func(dayfly.Database) bool { return false })
				})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "give up one whose server is not there")
	w.flags(cmd.Flags())
	return cmd
}

// onlyFirst completes a command's first argument alone.
func onlyFirst(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(given) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, given, prefix)
	}
}

// completeDatabases completes the names of databases.
func (c *command) completeDatabases(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
	defer cancel()
	list, err := c.client().Databases(ctx, dayfly.DatabaseFilter{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names := make([]string, len(list))
	for i, d := range list {
		names[i] = d.Name
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeTemplates completes the names of templates.
func (c *command) completeTemplates(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
	defer cancel()
	list, err := c.client().Templates(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names := make([]string, len(list))
	for i, t := range list {
		names[i] = t.Name
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
