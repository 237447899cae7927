//go:build !linux

package cli

import (
	"context"

	"github.com/dayfly-dev/dayfly"
)

func defaultData() string { return "" }

// examine finds nothing: servers run on Linux only.
func examine(context.Context, string) []dayfly.Finding { return nil }
