package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/dayfly-dev/dayfly"
)

// madeToken is what the API answers to who makes a token.
type madeToken struct {
	dayfly.Token
	Secret string `json:"token"`
}

func (c *command) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Create, list and revoke tokens for the API", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error { return usagef("token: say create, list or revoke") }}
	create := &cobra.Command{
		Use: "create NAME", Short: "Make a token and print it, this once", Args: args(cobra.ExactArgs(1)),
		Long: `Make a token for the API and print it. It is not shown again: the server keeps its hash alone.

  export DAYFLY_TOKEN="$(dayfly token create ci)"

` + exitCodes,
		RunE: func(cmd *cobra.Command, names []string) error {
			t, secret, err := c.client().CreateToken(cmd.Context(), names[0])
			if err != nil {
				return err
			}
			if done, err := c.machine(madeToken{t, secret.Reveal()}); done {
				return err
			}
			fmt.Fprintln(c.Out, secret.Reveal())
			fmt.Fprintf(c.Err, "token %s made; it is not shown again: give it with DAYFLY_TOKEN or --token\n", t.Name)
			return nil
		},
	}
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List tokens, by their names", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			tokens, err := c.client().Tokens(cmd.Context())
			if err != nil {
				return err
			}
			if done, err := c.machine(asList(tokens)); done {
				return err
			}
			rows := make([][]string, len(tokens))
			for i, t := range tokens {
				rows[i] = []string{t.Name, t.ID, ago(t.CreatedAt, time.Now())}
			}
			table(c.Out, []string{"NAME", "ID", "AGE"}, rows)
			return nil
		},
	}
	revoke := &cobra.Command{
		Use: "revoke NAME", Aliases: []string{"rm"}, Short: "Let nobody in with a token any more", Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			return c.client().DeleteToken(cmd.Context(), names[0])
		},
	}
	cmd.AddCommand(create, list, revoke)
	return cmd
}
