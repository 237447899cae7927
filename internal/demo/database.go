package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"
	"github.com/jackc/pgx/v5"

	"github.com/dayfly-dev/dayfly"

	shop "github.com/dayfly-dev/dayfly/examples/shop"
)

const (
	// orders is how many of them the template has.
	orders = 1_000_000
	// lost is the one that the tour deletes.
	lost = 4711
	// loading is how long the template may take, also on a small machine.
	loading = 5 * time.Minute
)

// loadOrders makes the template of the shop's databases. Where the server cannot keep any, it says
// why, and the shop goes without.
func (t *tour) loadOrders(ctx context.Context) error {
	t.step("A template: a database with a million orders, loaded once. Environments get copies of it.")
	fixtures, err := shop.Orders()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, loading)
	defer cancel()
	begun := time.Now()
	template, err := t.api.CreateTemplate(ctx, dayfly.TemplateRequest{Name: "shop", Fixtures: fixtures}, nil)
	if dayfly.ErrorCode(err) == dayfly.CodeUnavailable {
		t.say("  Left out, so the shop keeps its orders in memory: %s", reason(err))
		return nil
	}
	if err != nil {
		return err
	}
	t.command("dayfly template create shop --fixtures db/orders.sql")
	for !template.Settled() {
		select {
		case <-ctx.Done():
			return dayfly.Errorf(dayfly.CodeTimeout, "the template is not loaded: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
		if template, err = t.api.Template(ctx, template.ID); err != nil {
			return err
		}
	}
	if template.Status != dayfly.TemplateReady {
		return dayfly.Errorf(dayfly.CodeFailed, "the template could not be loaded: %s", template.Message)
	}
	t.databases = true
	t.say("  %5.1f s  loaded: %s by %s %s; copied by %s", time.Since(begun).Seconds(), size(template.SizeBytes), template.Engine, template.EngineVersion, template.Driver)
	return nil
}

// reason is what an error says, without which call it was.
func reason(err error) string {
	_, text, ok := strings.Cut(err.Error(), "this server keeps no databases: ")
	if !ok {
		return err.Error()
	}
	return text
}

// deleteOrder deletes an order in the database of the borrower, and shows what each of them has then.
func (t *tour) deleteOrder(ctx context.Context) error {
	list, err := t.ofEnvironments(ctx)
	if err != nil {
		return err
	}
	which := slices.IndexFunc(list, func(d dayfly.Database) bool { return d.Environment == borrower })
	if which < 0 {
		return dayfly.Errorf(dayfly.CodeFailed, "%s has no database", borrower)
	}
	t.database = list[which].Name
	statement := fmt.Sprintf("DELETE FROM orders WHERE id = %d", lost)
	t.command(fmt.Sprintf("psql \"$(dayfly db url %s)\" -c '%s'", t.database, statement))
	if err := onDatabase(ctx, list[which], func(c *pgx.Conn) error {
		tag, err := c.Exec(ctx, statement)
		if err == nil && tag.RowsAffected() != 1 {
			err = dayfly.Errorf(dayfly.CodeFailed, "%d orders were deleted, not one", tag.RowsAffected())
		}
		return err
	}); err != nil {
		return err
	}
	w := tabwriter.NewWriter(t.Out, 0, 0, 3, ' ', 0)
	for _, d := range list {
		n, there, err := count(ctx, d)
		if err != nil {
			return err
		}
		want, what := orders, "has order"
		if d.Environment == borrower {
			want, what = orders-1, "has no order"
		}
		if n != want || there == (d.Environment == borrower) {
			return dayfly.Errorf(dayfly.CodeFailed, "the database of %s has %d orders, not %d", d.Environment, n, want)
		}
		fmt.Fprintf(w, "    %s\t%d orders, %s %d\t%s, of which %s its own when last measured\n", d.Environment, n, what, lost, size(d.SizeBytes), size(d.OwnBytes))
	}
	return w.Flush()
}

// ofEnvironments gives the databases of environments. Their sizes are measured from time to time:
// it waits a moment for those that have none yet.
func (t *tour) ofEnvironments(ctx context.Context) ([]dayfly.Database, error) {
	for deadline := time.Now().Add(time.Second); ; {
		list, err := t.api.Databases(ctx, dayfly.DatabaseFilter{Template: "shop"})
		if err != nil {
			return nil, err
		}
		unknown := slices.ContainsFunc(list, func(d dayfly.Database) bool { return d.OwnBytes == nil })
		if !unknown || time.Now().After(deadline) {
			return list, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// count counts the orders in a database, and says whether the one that is deleted is among them.
func count(ctx context.Context, d dayfly.Database) (n int, there bool, err error) {
	err = onDatabase(ctx, d, func(c *pgx.Conn) error {
		return c.QueryRow(ctx, "SELECT count(*), count(*) FILTER (WHERE id = $1) > 0 FROM orders", lost).Scan(&n, &there)
	})
	return n, there, err
}

func onDatabase(ctx context.Context, d dayfly.Database, do func(*pgx.Conn) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, d.URL)
	if err != nil {
		return fmt.Errorf("the database of %s: %w", d.Environment, err)
	}
	defer func() { err = errors.Join(err, c.Close(context.WithoutCancel(ctx))) }()
	return do(c)
}

// size writes a number of bytes; nil = not known.
func size(bytes *int64) string {
	if bytes == nil {
		return "an unknown number of bytes"
	}
	return units.HumanSize(float64(*bytes))
}
