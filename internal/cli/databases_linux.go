package cli

import (
	"context"
	"path/filepath"

	"github.com/dayfly-dev/dayfly/internal/app"
	"github.com/dayfly-dev/dayfly/internal/database/keeper"
	"github.com/dayfly-dev/dayfly/internal/database/postgres"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot"
)

// databases keep PostgreSQL's, in folders that share their blocks.
type databases struct {
	*keeper.Keeper
	config app.DatabaseConfig
}

// openDatabases makes what keeps the databases of a server.
func openDatabases(ctx context.Context, c app.DatabaseConfig) (app.Databases, error) {
	engine := postgres.New(postgres.Options{Logger: c.Logger})
	if _, err := engine.Versions(ctx); err != nil {
		return nil, err
	}
	d := databases{config: c}
	cloner, err := snapshot.Open(ctx, snapshot.Options{Dir: d.folder(), Driver: c.Driver, Pool: c.Pool, Logger: c.Logger})
	if err != nil {
		return nil, err
	}
	d.Keeper, err = keeper.Open(ctx, keeper.Options{
		Dir: filepath.Join(c.Dir, "records"), Engine: engine, Cloner: cloner, FirstPort: c.FirstPort, LastPort: c.LastPort,
		Spares: c.Spares, Logger: c.Logger,
	})
	return d, err
}

func (d databases) folder() string { return filepath.Join(d.config.Dir, "files") }

// Destroy takes away where databases were, once none is left and the keeper is closed.
func (d databases) Destroy(ctx context.Context) error {
	return snapshot.Destroy(ctx, d.folder(), d.config.Logger)
}
