//go:build linux

package postgres

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/database/enginetest"
)

func TestPostgresDoesWhatEveryEngineDoes(t *testing.T) {
	enginetest.Run(t, enginetest.System{
		New: func(t *testing.T, root string) database.Engine {
			e := New(Options{Sockets: filepath.Join(root, "s"), Programs: enginetest.Programs()})
			if _, err := e.Versions(t.Context()); err != nil {
				t.Skip(err)
			}
			return e
		},
		Ask: func(ctx context.Context, c database.Clone, name, query string) (string, error) {
			return try(ctx, c, name, query)
		},
		Dump: func(texts ...string) []byte {
			return fmt.Appendf(nil, "CREATE TABLE public.item (name varchar(100));\nCOPY public.item (name) FROM stdin;\n%s\n\\.\n\n", strings.Join(texts, "\n"))
		},
		Insert: func(text string) string { return "INSERT INTO item VALUES ('" + text + "')" },
		Update: func(text string) string { return "UPDATE item SET name = '" + text + "'" },
		Wrong:  "SELECT nonsense FROM nowhere",
		Count:  "SELECT count(*) FROM item",
	})
}
