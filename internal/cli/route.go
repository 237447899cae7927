package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dayfly-dev/dayfly"
)

func (c *command) routeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "route", Short: "Give an address to anything that speaks HTTP", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error { return usagef("route: say add, list or remove") }}
	var name string
	var strip bool
	add := &cobra.Command{
		Use: "add HOST[/PATH] URL", Short: "Pass requests for a host, or for a path of it, on to a URL", Args: args(cobra.ExactArgs(2)),
		Long: `Pass requests for a host, or for a path of it, on to a URL. The path of a request is passed on
unchanged, behind the path that URL has; with --strip without PATH.

  dayfly route add docs.localhost https://docs.example.org
  dayfly route add tools.localhost/wiki http://10.0.0.7:3000 --strip

` + exitCodes,
		RunE: func(cmd *cobra.Command, given []string) error {
			r := dayfly.Route{Name: name, To: given[1], Strip: strip}
			host, path, _ := strings.Cut(given[0], "/")
			r.Host, r.Path = host, "/"+path
			if r.Name == "" {
				r.Name = dayfly.Slug(given[0])
			}
			made, err := c.client().PutRoute(cmd.Context(), r)
			if err != nil {
				return err
			}
			if done, err := c.machine(made); done {
				return err
			}
			c.showRoutes([]dayfly.Route{made})
			return nil
		},
	}
	add.Flags().StringVar(&name, "name", "", "name of the route (made from HOST/PATH by default); one of this name is changed")
	add.Flags().BoolVar(&strip, "strip", false, "remove PATH from the path of a request")
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List routes, by their names", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			routes, err := c.client().Routes(cmd.Context())
			if err != nil {
				return err
			}
			if done, err := c.machine(asList(routes)); done {
				return err
			}
			c.showRoutes(routes)
			return nil
		},
	}
	remove := &cobra.Command{
		Use: "remove NAME|HOST[/PATH]", Aliases: []string{"rm"}, Short: "Remove a route", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			// A name is its own slug.
			return c.client().DeleteRoute(cmd.Context(), dayfly.Slug(given[0]))
		},
	}
	cmd.AddCommand(add, list, remove)
	return cmd
}

func (c *command) showRoutes(routes []dayfly.Route) {
	rows := make([][]string, len(routes))
	for i, r := range routes {
		rows[i] = []string{r.Name, r.Host + strings.TrimSuffix(r.Path, "/"), r.To, ago(r.CreatedAt, time.Now())}
	}
	table(c.Out, []string{"NAME", "HOST", "TO", "AGE"}, rows)
}
