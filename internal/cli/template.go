package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/dayfly-dev/dayfly"
)

func (c *command) templateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "template", Short: "Templates of databases: loaded once, copied in no time", Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return usagef("template: say create, list, refresh or delete")
		},
	}
	cmd.AddCommand(c.templateCreateCommand(), c.templateListCommand(), c.templateRefreshCommand(), c.templateDeleteCommand())
	return cmd
}

func (c *command) templateCreateCommand() *cobra.Command {
	var req dayfly.TemplateRequest
	var dump, address, mask, fixtures string
	var w waiting
	cmd := &cobra.Command{
		Use: "create NAME --from-dump F | --from-dir D | --from-url URL | --fixtures F", Short: "Create a template", Args: args(cobra.ExactArgs(1)),
		Long: `Create a template: data that is loaded once, and that databases are copies of. It comes from a dump,
which is sent from here and may be compressed with gzip or zstd (- is standard input); from the data
folder of a database server that was shut down, on the server's host; from a running server; or it is
empty but for fixtures. --mask replaces what must not be shown: the old values are in no file afterwards.

  pg_dump -Fc shop | dayfly template create shop --from-dump -
  dayfly template create shop --from-dump shop.sql.zst --mask mask.sql
  dayfly template create shop --from-url postgres://reader:secret@db.example.org/shop
  dayfly template create small --fixtures db/fixtures.sql

` + exitCodes,
		RunE: func(cmd *cobra.Command, names []string) error {
			req.Name, req.URL = names[0], dayfly.NewSecret(address)
			sources := 0
			for _, s := range []string{dump, req.Dir, address} {
				if s != "" {
					sources++
				}
			}
			if sources > 1 {
				return usagef("template create: give one of --from-dump, --from-dir and --from-url")
			}
			if sources == 0 && fixtures == "" {
				return usagef("template create: say what it is made from: --from-dump, --from-dir, --from-url, or --fixtures for one that is empty but for them")
			}
			var err error
			if req.Mask, err = script("--mask", mask); err != nil {
				return err
			}
			if req.Fixtures, err = script("--fixtures", fixtures); err != nil {
				return err
			}
			return c.loadTemplate(cmd.Context(), names[0], dump, w, func(ctx context.Context, dump io.Reader, size int64) (dayfly.Template, error) {
				req.Size = size
				return c.client().CreateTemplate(ctx, req, dump)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&dump, "from-dump", "", "file with a dump: plain SQL, pg_dump's custom format, or its directory format as tar; - for standard input")
	f.StringVar(&req.Dir, "from-dir", "", "data folder on the server's host, of a database server that was shut down")
	f.StringVar(&address, "from-url", "", "address of a running server (better: $DAYFLY_FROM_URL)")
	f.StringVar(&mask, "mask", "", "file with SQL that is run before the template is frozen")
	f.StringVar(&fixtures, "fixtures", "", "file with SQL that is run before --mask")
	cmd.PreRun = func(*cobra.Command, []string) {
		if address == "" && dump == "" && req.Dir == "" {
			address = c.Getenv("DAYFLY_FROM_URL") // not as a default, which help would show
		}
	}
	w.flags(f)
	return cmd
}

// script reads a file of SQL; "" = none is given.
func script(flag, file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	switch {
	case err != nil:
		return nil, usagef("%s: %w", flag, err)
	case len(data) == 0:
		return nil, usagef("%s: %s is empty", flag, file)
	}
	return data, nil
}

// loadTemplate sends a dump, where there is one ("" = none, "-" = standard input), waits until the template is
// loaded, and shows it.
func (c *command) loadTemplate(ctx context.Context, name, file string, w waiting, do func(context.Context, io.Reader, int64) (dayfly.Template, error)) error {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	var dump io.Reader
	sent := &meter{begun: time.Now()}
	if file != "" {
		f, total, err := c.openDump(file)
		if err != nil {
			return err
		}
		defer f.Close()
		sent.Reader, sent.total = until(ctx, f), total
		dump = sent
	}
	progress := c.newProgress("template " + name)
	stop := c.showLoading(ctx, progress, name, sent)
	t, err := do(ctx, dump, sent.total)
	if err == nil && !w.noWait && w.wait {
		for !t.Settled() {
			var now dayfly.Template
			if now, err = c.client().Template(ctx, t.ID); err != nil {
				break
			}
			if t = now; !t.Settled() {
				select {
				case <-ctx.Done():
				case <-time.After(askAgain):
				}
			}
		}
	}
	stop()
	progress.end()
	switch {
	case err != nil && ctx.Err() != nil && outer.Err() == nil:
		return dayfly.Errorf(dayfly.CodeTimeout, "template %s is not loaded after %s: give it more time with --timeout", name, w.timeout)
	case err != nil:
		return err
	}
	var failure error
	if t.Settled() && t.Message != "" {
		failure = &shown{dayfly.Errorf(dayfly.CodeFailed, "template %s: %s", t.Name, t.Message)}
		fmt.Fprintf(c.Err, "template %s could not be loaded: %s\n", t.Name, t.Message)
	}
	if done, err := c.machine(t); done {
		return errors.Join(err, failure)
	}
	if failure == nil {
		c.showTemplates([]dayfly.Template{t})
	}
	return failure
}

// openDump opens a dump; its size is 0 where it is not known.
func (c *command) openDump(file string) (io.ReadCloser, int64, error) {
	if file == "-" {
		return io.NopCloser(c.In), 0, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, usagef("--from-dump: %w", err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		f.Close()
		return nil, 0, usagef("--from-dump: %w", err)
	case info.IsDir():
		f.Close()
		return nil, 0, usagef("--from-dump: %s is a folder: send it as tar, such as with `tar -C %s -c . | dayfly template create NAME --from-dump -`", file, filepath.Clean(file))
	}
	return f, info.Size(), nil
}

// until gives what a reader has until ctx ends, also while a read of it is blocked, as one of standard input is when
// whoever writes there pauses: nothing else ends that. Such a read is left behind, with a buffer of its own.
func until(ctx context.Context, r io.Reader) io.Reader {
	return &abandonable{ctx: ctx, r: r, buffer: make([]byte, 256<<10), result: make(chan readResult, 1)}
}

type abandonable struct {
	ctx    context.Context
	r      io.Reader
	buffer []byte // of the read that is under way
	rest   []byte // of it, not handed on yet
	err    error
	result chan readResult
}

type readResult struct {
	n   int
	err error
}

// Read implements io.Reader.
func (a *abandonable) Read(p []byte) (int, error) {
	if len(a.rest) == 0 && a.err == nil {
		if a.err = a.ctx.Err(); a.err == nil {
			go func() {
				n, err := a.r.Read(a.buffer)
				a.result <- readResult{n, err}
			}()
			select {
			case got := <-a.result:
				a.rest, a.err = a.buffer[:got.n], got.err
			case <-a.ctx.Done():
				a.err = a.ctx.Err()
			}
		}
	}
	if len(a.rest) > 0 {
		n := copy(p, a.rest)
		a.rest = a.rest[n:]
		return n, nil
	}
	return 0, a.err
}

// meter counts what is read.
type meter struct {
	io.Reader
	begun time.Time
	total int64 // 0 = not known
	read  atomic.Int64
	ended atomic.Bool
}

// Read implements io.Reader.
func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.read.Add(int64(n))
	if err != nil {
		m.ended.Store(true)
	}
	return n, err
}

// status says how far it is, how fast, and how long it takes.
func (m *meter) status(now time.Time) string { return rate(m.read.Load(), m.total, now.Sub(m.begun)) }

// rate says how far something is after a time, how fast, and how long the rest takes at that rate.
func rate(done, total int64, after time.Duration) string {
	text := size(&done)
	if total > 0 {
		text += " of " + size(&total)
	}
	seconds := after.Seconds()
	if seconds < 0.001 || done == 0 {
		return text
	}
	perSecond := int64(float64(done) / seconds)
	text += ", " + size(&perSecond) + "/s"
	if total > done && perSecond > 0 {
		left := time.Duration(float64(total-done) / float64(perSecond) * float64(time.Second))
		text += ", " + left.Round(time.Second).String() + " left"
	}
	return text
}

// showLoading says what is done until the returned function is called.
func (c *command) showLoading(ctx context.Context, p *progress, name string, sent *meter) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		said, step, begun := time.Now(), "", time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			status := ""
			if sent.Reader != nil && !sent.ended.Load() {
				status = "sending, " + sent.status(time.Now())
			} else if t, err := c.client().Template(ctx, name); err == nil && t.Progress != nil {
				if t.Progress.Step != step {
					step, begun = t.Progress.Step, time.Now()
				}
				status = step
				if t.Progress.Bytes > 0 && sent.Reader == nil {
					status += ", " + rate(t.Progress.Bytes, t.Progress.Total, time.Since(begun))
				}
			}
			if status != "" {
				p.doing("template "+name+": "+status, time.Since(said) > sayEvery)
				if time.Since(said) > sayEvery {
					said = time.Now()
				}
			}
		}
	})
	return func() {
		cancel()
		done.Wait()
	}
}

// sayEvery is how often a long work is told of where there is no terminal.
const sayEvery = 5 * time.Second

// doing sets what is shown as going on; aloud writes a line of it where there is no terminal.
func (p *progress) doing(status string, aloud bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = status
	if aloud && !p.live {
		p.said++
		fmt.Fprintf(p.out, "%6.1fs  %s\n", time.Since(p.start).Seconds(), status)
	}
}

func (c *command) templateListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List templates", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := c.client().Templates(cmd.Context())
			if err != nil {
				return err
			}
			if done, err := c.machine(asList(list)); done {
				return err
			}
			c.showTemplates(list)
			return nil
		},
	}
}

func (c *command) showTemplates(list []dayfly.Template) {
	rows := make([][]string, len(list))
	for i, t := range list {
		status := string(t.Status)
		if t.Refreshing {
			status += ", refreshing"
		}
		if t.Progress != nil {
			status += " (" + t.Progress.Step + ")"
		}
		refreshed := "-"
		if t.RefreshedAt != nil {
			refreshed = ago(*t.RefreshedAt, time.Now())
		}
		rows[i] = []string{t.Name, status, fmt.Sprint(t.Version), orDash(strings.TrimSpace(t.Engine + " " + t.EngineVersion)), t.Source, size(t.SizeBytes), orDash(t.Driver), refreshed, fmt.Sprint(len(t.Databases))}
	}
	table(c.Out, []string{"NAME", "STATUS", "VERSION", "ENGINE", "FROM", "SIZE", "COPIED BY", "LOADED", "DATABASES"}, rows)
	for _, t := range list {
		if t.Message != "" {
			fmt.Fprintf(c.Out, "%s: %s\n", t.Name, t.Message)
		}
	}
}

func (c *command) templateRefreshCommand() *cobra.Command {
	var dump string
	var w waiting
	cmd := &cobra.Command{
		Use: "refresh NAME [--from-dump F]", Short: "Make the next version of a template", Args: args(cobra.ExactArgs(1)), ValidArgsFunction: c.completeTemplates,
		Long: `Make the next version of a template, from where the first one came from; one that was made from a dump
needs a new dump. Databases that were made from older versions live on.

` + exitCodes,
		RunE: func(cmd *cobra.Command, names []string) error {
			return c.loadTemplate(cmd.Context(), names[0], dump, w, func(ctx context.Context, dump io.Reader, size int64) (dayfly.Template, error) {
				return c.client().RefreshTemplate(ctx, names[0], dump, size)
			})
		},
	}
	cmd.Flags().StringVar(&dump, "from-dump", "", "file with a dump; - for standard input")
	w.flags(cmd.Flags())
	return cmd
}

func (c *command) templateDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Aliases: []string{"rm"}, Short: "Delete a template that no database was made from", Args: args(cobra.ExactArgs(1)), ValidArgsFunction: c.completeTemplates,
		RunE: func(cmd *cobra.Command, names []string) error {
			return c.client().DeleteTemplate(cmd.Context(), names[0])
		},
	}
}
