//go:build !linux

package cli

import "github.com/spf13/cobra"

// serverCommands are those that run on the server's platform only.
func (c *command) serverCommands() []*cobra.Command { return nil }
