//go:build linux

// Command databases measures clones of templates: from the request to the first answered SELECT 1 by size and driver, beside
// what PostgreSQL's own start takes on a folder that is there, createdb with both strategies and a restore of the dump; what a
// clone uses of disk and memory; and many that run at once. It needs root and PostgreSQL.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dayfly-dev/dayfly/bench/lab"
	"github.com/dayfly-dev/dayfly/internal/database"
	"github.com/dayfly-dev/dayfly/internal/database/keeper"
	"github.com/dayfly-dev/dayfly/internal/database/postgres"
	"github.com/dayfly-dev/dayfly/internal/database/snapshot"
)

const mb = 1 << 20

func main() {
	var o options
	sizes := flag.String("sizes", "100,1000", "sizes of templates in MB; 10000 takes long, and as much disk for each driver")
	drivers := flag.String("drivers", "btrfs,reflink,overlay,copy", "drivers to measure")
	flag.StringVar(&o.binary, "dayfly", "", "the binary whose db create is measured, too; empty: none")
	flag.IntVar(&o.rounds, "rounds", 5, "creates to measure of each")
	flag.IntVar(&o.clones, "clones", 30, "clones that run at once; 0: none")
	flag.BoolVar(&o.createdb, "createdb", true, "measure createdb and a restore, too; with 10 GB each of them takes minutes")
	flag.StringVar(&o.dir, "dir", "", "folder for all of it, by default one for temporary files")
	flag.Parse()
	o.drivers = strings.Split(*drivers, ",")
	for _, s := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "%q is no size in MB\n", s)
			os.Exit(2)
		}
		o.sizes = append(o.sizes, n)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type options struct {
	binary, dir    string
	sizes          []int
	drivers        []string
	rounds, clones int
	createdb       bool
}

// run measures each size by itself, so that only one is on the disk.
func run(ctx context.Context, o options) (err error) {
	if os.Getuid() != 0 {
		fmt.Println("databases: not measured, as only root can mount the file systems that it compares")
		return nil
	}
	if _, err := postgres.New(postgres.Options{}).Versions(ctx); err != nil {
		fmt.Println("databases: not measured:", err)
		return nil
	}
	for i, size := range o.sizes {
		if err := measure(ctx, o, size, i == 0); err != nil {
			return err
		}
	}
	if o.binary == "" {
		return nil
	}
	for _, spares := range []int{0, 1} {
		if err := server(ctx, o, spares); err != nil {
			return err
		}
	}
	return nil
}

func measure(ctx context.Context, o options, size int, first bool) (err error) {
	top, err := os.MkdirTemp(o.dir, "dayfly-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(top)) }()
	if err := os.Chmod(top, 0o711); err != nil { //nolint:gosec // PostgreSQL's user passes through
		return err
	}
	var hosts []*host
	defer func() {
		for _, h := range hosts {
			err = errors.Join(err, h.close())
		}
	}()
	for _, driver := range o.drivers {
		h, err := newHost(ctx, top, driver, size)
		if err != nil {
			return fmt.Errorf("%s: %w", driver, err)
		}
		hosts = append(hosts, h)
	}
	fmt.Printf("\nTemplate with %d MB of rows, %s in all\n", size, lab.MiB(int(hosts[0].template.Bytes)))
	var base *baseline
	if o.createdb {
		if base, err = newBaseline(ctx, hosts[len(hosts)-1], top); err != nil {
			return fmt.Errorf("createdb: %w", err)
		}
	}
	times := map[string][]time.Duration{}
	var names []string
	took := func(name string, f func() (time.Duration, error)) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		d, err := f()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		times[name] = append(times[name], d)
		return nil
	}
	// All of them in turn, so that what else happens on the machine meets all.
	for round := range o.rounds + 1 {
		if round == 1 { // the first one warms
			clear(times)
		}
		for _, h := range hosts {
			err := errors.Join(
				took(h.driver+": PostgreSQL alone, start to SELECT 1", func() (time.Duration, error) { return h.alone(ctx) }),
				took(h.driver+": create to SELECT 1", func() (time.Duration, error) { return h.create(ctx, round == o.rounds) }),
			)
			if err == nil && h.driver != "copy" {
				err = took(h.driver+": create to SELECT 1, with a spare", func() (time.Duration, error) { return h.createFromSpare(ctx) })
			}
			if err != nil {
				return err
			}
		}
		if base == nil || round > 3 { // they take long, and vary little
			continue
		}
		for _, strategy := range []string{"wal_log", "file_copy"} {
			if err := took("createdb -T "+strategy, func() (time.Duration, error) { return base.createdb(ctx, strategy) }); err != nil {
				return err
			}
		}
		if round < 2 {
			if err := took("pg_restore -j 2", func() (time.Duration, error) { return base.restore(ctx) }); err != nil {
				return err
			}
		}
	}
	best := lab.At(times[hosts[0].driver+": create to SELECT 1"], 50)
	fmt.Printf("%-50s %12s %12s %12s %8s\n", "", "median", "least", "most", "ratio")
	for _, name := range names {
		d := times[name]
		fmt.Printf("%-50s %12s %12s %12s %8.2f\n", name, round(lab.At(d, 50)), round(slices.Min(d)), round(slices.Max(d)), float64(lab.At(d, 50))/float64(best))
	}
	for _, h := range hosts {
		fmt.Printf("%-50s %s\n", h.driver+": own data after start, after VACUUM", h.own)
		fmt.Printf("%-50s %s\n", h.driver+": memory of an idle clone (PSS)", h.memory)
	}
	if base != nil {
		if err := base.close(ctx); err != nil {
			return err
		}
	}
	if first && o.clones > 0 {
		return hosts[0].many(ctx, o.clones)
	}
	return nil
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// fixtures make a template of about that many MB: one large table with a primary key, and a small one.
func fixtures(size int) []byte {
	return fmt.Appendf(nil, `CREATE TABLE item (id bigint PRIMARY KEY, body text);
INSERT INTO item SELECT n, repeat(md5(n::text), 6) FROM generate_series(1, %d) n;
CREATE TABLE small AS SELECT n AS id, md5(n::text) AS body FROM generate_series(1, 10000) n;
`, size*1000*1000/270)
}

// free gives a port that nobody listens on.
func free() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func url(c database.Clone, name string) string {
	return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/%s?sslmode=disable", c.User, c.Password, c.Port, name)
}

// execute connects anew, as a client does, and executes statements.
func execute(ctx context.Context, url string, statements ...string) (err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	for _, s := range statements {
		if _, err := conn.PgConn().Exec(ctx, s).ReadAll(); err != nil {
			return err
		}
	}
	return nil
}

// host is a keeper on a file system with one driver.
type host struct {
	driver, mount, folder, programs string
	data                            string // where the copies are
	cloner                          snapshot.Cloner
	engine                          *postgres.Engine
	keeper                          *keeper.Keeper
	template                        database.Template
	bare                            string // folder of a clone that PostgreSQL is started on by hand
	bareClone                       database.Clone
	own, memory                     string
}

func newHost(ctx context.Context, top, driver string, size int) (_ *host, err error) {
	h := &host{driver: driver, folder: filepath.Join(top, driver)}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	if err := os.Mkdir(h.folder, 0o711); err != nil {
		return nil, err
	}
	h.data = filepath.Join(h.folder, "data")
	mkfs := map[string][]string{"btrfs": {"mkfs.btrfs", "-q", "-m", "single"}, "reflink": {"mkfs.xfs", "-q", "-m", "reflink=1"}}[driver]
	if mkfs != nil {
		// A load writes as much into its log as into tables, and a btrfs that has given all of its room to data has none for the rest.
		if err := h.device(mkfs, int64(4*size+2000)*mb); err != nil {
			return nil, err
		}
		h.data = filepath.Join(h.mount, "data")
	}
	h.engine = postgres.New(postgres.Options{Sockets: filepath.Join(h.folder, "s")})
	if err := h.open(ctx, 0); err != nil {
		return nil, err
	}
	if h.template, err = h.keeper.Load(ctx, database.Load{ID: "t", Database: "shop", Fixtures: fixtures(size)}); err != nil {
		return nil, err
	}
	found, err := filepath.Glob("/usr/lib/postgresql/" + h.template.Version + "/bin")
	if err != nil || len(found) != 1 {
		return nil, fmt.Errorf("no programs of PostgreSQL %s: %w", h.template.Version, err)
	}
	h.programs = found[0]
	if h.bare, err = h.cloner.Clone(ctx, "tt", "bare"); err != nil {
		return nil, err
	}
	port, err := free()
	if err != nil {
		return nil, err
	}
	h.bareClone = database.Clone{ID: "bare", User: "app", Password: "secret", Port: port}
	if err := h.engine.Prepare(ctx, h.bare, h.bareClone); err != nil {
		return nil, err
	}
	return h, h.engine.Stop(ctx, h.bare, true)
}

// open opens the keeper anew, with so many spares.
func (h *host) open(ctx context.Context, spares int) (err error) {
	if h.keeper != nil {
		if err := h.keeper.Close(); err != nil {
			return err
		}
	}
	if h.cloner, err = snapshot.Open(ctx, snapshot.Options{Dir: h.data, Driver: h.driver, Pool: snapshot.PoolNone}); err != nil {
		return err
	}
	h.keeper, err = keeper.Open(ctx, keeper.Options{
		Dir: filepath.Join(h.folder, "records"), Engine: h.engine, Cloner: h.cloner, FirstPort: 21000, LastPort: 28999, Measure: time.Hour, Spares: spares,
	})
	return err
}

// like is what all clones are like.
func like() database.Clone { return database.Clone{Template: "t", User: "app"} }

// createFromSpare waits until a spare is there, as after a moment without a create, and gives the time from the request
// for a clone until its first answer.
func (h *host) createFromSpare(ctx context.Context) (took time.Duration, err error) {
	if err := h.open(ctx, 1); err != nil {
		return 0, err
	}
	h.keeper.Reserve(like())
	if err := spareIn(filepath.Join(h.folder, "records")); err != nil {
		return 0, err
	}
	if took, err = h.create(ctx, false); err != nil {
		return 0, err
	}
	return took, h.open(ctx, 0)
}

// spareIn waits until a keeper has a spare.
func spareIn(records string) error {
	return lab.Until(time.Minute, func() bool {
		paths, _ := filepath.Glob(filepath.Join(records, "spares", "*.json")) // the pattern is right
		for _, path := range paths {
			b, _ := os.ReadFile(path) // it may be gone
			if strings.Contains(string(b), `"made":true`) {
				return true
			}
		}
		return false
	})
}

// create makes a clone and gives the time until its first answer.
func (h *host) create(ctx context.Context, look bool) (took time.Duration, err error) {
	begun := time.Now()
	c, err := h.want(ctx)
	if err != nil {
		return 0, err
	}
	if err := h.keeper.Ensure(ctx, c); err != nil {
		return 0, err
	}
	if err := execute(ctx, url(c, "shop"), "SELECT 1"); err != nil {
		return 0, err
	}
	took = time.Since(begun)
	if look {
		if h.memory, err = h.idle(ctx, c); err != nil {
			return 0, err
		}
		after, err := h.bytes(ctx, "c"+c.ID)
		if err != nil {
			return 0, err
		}
		if err := execute(ctx, url(c, "shop"), "VACUUM small", "CHECKPOINT"); err != nil && !strings.Contains(err.Error(), "CHECKPOINT") && !strings.Contains(err.Error(), "checkpoint") {
			return 0, err
		}
		vacuumed, err := h.bytes(ctx, "c"+c.ID)
		if err != nil {
			return 0, err
		}
		h.own = after + ", " + vacuumed
	}
	return took, h.keeper.Remove(ctx, c.ID)
}

func (h *host) want(ctx context.Context) (database.Clone, error) {
	c := like()
	id, port, err := h.keeper.Place(ctx, c, nil)
	c.ID, c.Port, c.Password = id, port, "secret"
	return c, err
}

// bytes gives what a folder has for itself once it is written out.
func (h *host) bytes(ctx context.Context, name string) (string, error) {
	syscall.Sync()
	n, ok, err := h.cloner.OwnBytes(ctx, name)
	if err != nil || !ok {
		return "not known", err
	}
	return lab.MiB(int(n)), nil
}

// idle gives the memory of all processes of a clone.
func (h *host) idle(ctx context.Context, c database.Clone) (string, error) {
	path, err := h.cloner.Attach(ctx, "c"+c.ID)
	if err != nil {
		return "", err
	}
	n, pss := memory(path)
	return fmt.Sprintf("%s in %d processes", lab.MiB(pss), n), nil
}

// memory adds up the proportional set sizes of what works in a folder.
func memory(dir string) (processes, bytes int) {
	entries, _ := os.ReadDir("/proc") // it is there
	for _, e := range entries {
		cwd, err := os.Readlink("/proc/" + e.Name() + "/cwd")
		if err != nil || !strings.HasPrefix(cwd, dir+"/") {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/smaps_rollup")
		if err != nil {
			continue // ended
		}
		for line := range strings.Lines(string(b)) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Pss:" {
				kb, _ := strconv.Atoi(fields[1])
				processes, bytes = processes+1, bytes+kb<<10
			}
		}
	}
	return processes, bytes
}

// alone starts PostgreSQL by hand on a folder that is there and was shut down, and asks it at once and again until it answers.
func (h *host) alone(ctx context.Context) (took time.Duration, err error) {
	info, err := os.Stat(filepath.Join(h.bare, "data"))
	if err != nil {
		return 0, err
	}
	sockets, err := socketFolder(h.bare)
	if err != nil {
		return 0, err
	}
	who := info.Sys().(*syscall.Stat_t)
	if err := os.MkdirAll(sockets, 0o700); err != nil {
		return 0, err
	}
	if err := os.Chown(sockets, int(who.Uid), int(who.Gid)); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(h.programs, "postgres"), "-D", filepath.Join(h.bare, "data")) //nolint:gosec // a path of ours
	cmd.Dir = filepath.Join(h.bare, "data")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: who.Uid, Gid: who.Gid}}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err = lab.Until(time.Minute, func() bool { return execute(ctx, url(h.bareClone, "shop"), "SELECT 1") == nil })
	took = time.Since(begun)
	_ = cmd.Process.Signal(syscall.SIGINT)
	return took, errors.Join(err, cmd.Wait())
}

// socketFolder reads from a clone's settings where its socket is.
func socketFolder(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "data/postgresql.conf"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "unix_socket_directories = "); ok {
			return strings.Trim(strings.TrimSpace(value), "'"), nil
		}
	}
	return "", fmt.Errorf("%s names no folder for sockets", dir)
}

// many makes clones, four at a time, and looks at them while they rest.
func (h *host) many(ctx context.Context, n int) (err error) {
	var clones []database.Clone
	defer func() {
		for _, c := range clones {
			err = errors.Join(err, h.keeper.Remove(context.WithoutCancel(ctx), c.ID))
		}
	}()
	for range n {
		c, err := h.want(ctx)
		if err != nil {
			return err
		}
		clones = append(clones, c)
	}
	before, begun := available(), time.Now()
	results, next := make(chan error, n), make(chan database.Clone, n)
	for _, c := range clones {
		next <- c
	}
	close(next)
	for range 4 {
		go func() {
			for c := range next {
				err := h.keeper.Ensure(ctx, c)
				if err == nil {
					err = execute(ctx, url(c, "shop"), "SELECT 1")
				}
				results <- err
			}
		}()
	}
	for range n {
		err = errors.Join(err, <-results)
	}
	if err != nil {
		return err
	}
	took := time.Since(begun)
	var pss, processes int
	var used time.Duration
	for _, c := range clones {
		path, err := h.cloner.Attach(ctx, "c"+c.ID)
		if err != nil {
			return err
		}
		k, m := memory(path)
		pss, processes = pss+m, processes+k
		used -= cpu(path)
	}
	const rest = 5 * time.Second
	time.Sleep(rest)
	for _, c := range clones {
		path, err := h.cloner.Attach(ctx, "c"+c.ID)
		if err != nil {
			return err
		}
		used += cpu(path)
	}
	fmt.Printf("%d clones on %s, four at a time: %s, %s each; %d processes; PSS %s each; %s of memory each is gone; at rest %.2f %% of a core in all\n", n, h.driver,
		round(took), round(took/time.Duration(n)), processes, lab.MiB(pss/n), lab.MiB((before-available())/n), 100*used.Seconds()/rest.Seconds())
	return nil
}

// cpu adds up what the processes in a folder have used.
func cpu(dir string) (used time.Duration) {
	entries, _ := os.ReadDir("/proc") // it is there
	for _, e := range entries {
		cwd, err := os.Readlink("/proc/" + e.Name() + "/cwd")
		if err == nil && strings.HasPrefix(cwd, dir+"/") {
			pid, _ := strconv.Atoi(e.Name())
			used += lab.CPU(pid)
		}
	}
	return used
}

// available gives the bytes of memory that a new program could have.
func available() int {
	b, _ := os.ReadFile("/proc/meminfo") // it is there
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "MemAvailable:" {
			kb, _ := strconv.Atoi(fields[1])
			return kb << 10
		}
	}
	return 0
}
