package app

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/dayfly-dev/dayfly"
	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/reconcile"
	"github.com/dayfly-dev/dayfly/internal/registry"
)

// DatabaseConfig is what a keeper of databases is told.
type DatabaseConfig struct {
	Dir               string // a folder of its own
	ClusterID, NodeID string
	FirstPort         int
	LastPort          int
	Spares            int    // of how many templates a database is kept ready for the next one who asks
	Pool              string // "auto" = a pool file where that helps; "none" = none
	Driver            string // of snapshots; "" = the best that works
	Listen            string // the address at which clients reach the databases
	Logger            *slog.Logger
}

// Databases is what keeps databases.
type Databases interface {
	database.Keeper
	reconcile.Sweeper
	// Destroy takes away where they were kept, once none is left and the keeper is closed.
	Destroy(ctx context.Context) error
}

// startDatabases starts what keeps databases. A server goes on without.
func (a *App) startDatabases(ctx context.Context) error {
	if a.config.Databases == nil {
		return nil
	}
	keeper, err := a.openDatabases(ctx)
	// What a server has kept so far is worth some patience: a device that was just let go of may be busy for a moment.
	for wait := 250 * time.Millisecond; err != nil && wait <= time.Second && a.hasKept(); wait *= 2 {
		a.log.Warn("the databases of this server cannot be opened, and are tried again", "error", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		keeper, err = a.openDatabases(ctx)
	}
	switch {
	case err == nil:
	case a.hasKept():
		a.noDatabases = err.Error()
		a.log.Error("this server goes on without the databases that it keeps: start it again when what is wrong is mended", "error", err)
		return nil
	default:
		a.noDatabases = err.Error()
		a.log.Debug("this server keeps no databases", "error", err)
		return nil
	}
	a.databases = keeper
	a.sweepers = append(a.sweepers, keeper)
	a.onStop("databases", func(ctx context.Context) error {
		if err := keeper.Close(); err != nil || !a.config.TakeDown {
			return err
		}
		return keeper.Destroy(ctx)
	})
	return nil
}

// hasKept says whether the state has something that this server keeps.
func (a *App) hasKept() bool {
	for v := range registry.All(a.cache, registry.TemplateVersions) {
		if v.Value.Node == a.node {
			return true
		}
	}
	return false
}

func (a *App) openDatabases(ctx context.Context) (Databases, error) {
	return a.config.Databases(ctx, DatabaseConfig{
		Dir: a.folder.sub("databases"), ClusterID: a.store.ClusterID(), NodeID: a.node,
		FirstPort: a.config.FirstDBPort, LastPort: a.config.LastDBPort, Spares: a.config.DBSpares, Pool: a.config.Pool, Driver: a.config.DBDriver,
		Listen: a.databaseHost(), Logger: a.log,
	})
}

// databaseHost is where clients reach the databases of this server.
func (a *App) databaseHost() string {
	host := a.config.Advertise
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return cmp.Or(host, "127.0.0.1")
}

// takeDatabasesDown deletes every database and every template, and waits until they are gone.
func (a *App) takeDatabasesDown(ctx context.Context) error {
	if a.databases == nil {
		return nil
	}
	list, err := a.control.Databases(ctx, dayfly.DatabaseFilter{})
	if err != nil {
		return err
	}
	var all error
	for _, d := range list {
		if _, err := a.control.DeleteDatabase(ctx, d.ID, dayfly.DeleteOptions{Force: true}); err != nil && dayfly.ErrorCode(err) != dayfly.CodeNotFound {
			all = errors.Join(all, err)
		}
	}
	for _, d := range list {
		_, err := a.control.WaitDatabase(ctx, d.ID, func(dayfly.Database) bool { return false })
		if err != nil && dayfly.ErrorCode(err) != dayfly.CodeNotFound {
			return errors.Join(all, err)
		}
	}
	return errors.Join(all, a.control.ForgetTemplates(ctx))
}
