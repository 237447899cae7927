// Package cli is the command line: one file per command, each of which reads its
// options, calls the API, and shows the answer.
package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/dayfly-dev/dayfly/internal/api/client"
)

// Streams is where a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	// Terminal says whether Err is one: then progress is live.
	Terminal bool
	// Colour says whether to use colours on Out.
	Colour bool
}

// SystemStreams are those of the process.
func SystemStreams() Streams {
	return Streams{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv,
		Terminal: term.IsTerminal(int(os.Stderr.Fd())) && os.Getenv("TERM") != "dumb",
		Colour:   term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
	}
}

// command is what all commands share.
type command struct {
	Streams
	version string
	server  string
	token   string
	output  string
	// documents is how many YAML documents were written: a line parts them.
	documents int
}

func (c *command) client() *client.Client { return client.New(c.server, c.token) }

// ErrTerminated is the cause of a context that ended since a service manager asked for it, as
// to start another server, and not somebody at a terminal.
var ErrTerminated = errors.New("terminated")

// Main runs the command that args name and gives its exit code.
func Main(ctx context.Context, args []string, streams Streams, version string) int {
	if version == "" {
		version = buildVersion()
	}
	c := &command{Streams: streams, version: version}
	root := c.root()
	root.SetArgs(args)
	ran, err := root.ExecuteContextC(ctx)
	return c.exit(ran.CommandPath(), err)
}

func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "development"
}

func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "dayfly",
		Short: "Short-lived environments for every branch",
		Long: `dayfly builds a set of services from their branches, starts them, puts them behind
stable addresses, and takes everything away when its time is over.

  dayfly demo                                        see it at work
  dayfly server                                      start a server
  dayfly project add shop --repo URL                 tell it of a repository
  dayfly create --project shop --branch feature-x    an environment of a branch

` + exitCodes,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.SetIn(c.In)
	root.SetOut(c.Out) // before the scripts for completion are made, which remember it
	root.SetErr(c.Err)
	or := func(name, otherwise string) string {
		if v := c.Getenv(name); v != "" {
			return v
		}
		return otherwise
	}
	flags := root.PersistentFlags()
	flags.StringVar(&c.server, "server", or("DAYFLY_SERVER", "http://127.0.0.1:7070"), "address of the server ($DAYFLY_SERVER)")
	flags.StringVar(&c.token, "token", "", "token for the server ($DAYFLY_TOKEN)")
	flags.StringVarP(&c.output, "output", "o", "table", "table, json or yaml")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if c.token == "" {
			c.token = c.Getenv("DAYFLY_TOKEN") // not as a default, which help would show
		}
		return c.checkOutput(cmd)
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(
		c.projectCommand(), c.createCommand(), c.applyCommand(), c.checkCommand(),
		c.listCommand(), c.detailsCommand(), c.logsCommand(), c.eventsCommand(), c.openCommand(),
		c.extendCommand(), c.freezeCommand(), c.unfreezeCommand(), c.deleteCommand(), c.testCommand(), c.propagationCommand(), c.registerCommand(), c.routeCommand(), c.templateCommand(), c.dbCommand(), c.tokenCommand(), c.doctorCommand(), c.versionCommand(),
	)
	for _, cmd := range c.serverCommands() {
		root.AddCommand(cmd)
	}
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" { // by itself it takes any shell, and shows its help
			cmd.Args = args(cobra.NoArgs)
			cmd.RunE = func(*cobra.Command, []string) error {
				return usagef("completion: say bash, zsh, fish or powershell")
			}
		}
	}
	return root
}
