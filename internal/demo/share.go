package demo

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"text/tabwriter"

	"github.com/dayfly-dev/dayfly"
)

// borrower is the environment of the tour that has a service of its own and borrows the others.
const borrower = "shop-half-price"

// running are the shop's services that run all the time.
var running = []string{"frontend", "backend", "worker"}

// share makes the environment that is only its difference, and shows which processes answer for it.
func (t *tour) share(ctx context.Context) error {
	t.command("dayfly create " + borrower + " --project shop --base shop-main --service backend=summer-sale")
	err := t.create(ctx, borrower, dayfly.EnvironmentSpec{
		Name: borrower, Project: "shop", Base: "shop-main", Services: []dayfly.ServiceSpec{{Name: "backend", Branch: "summer-sale"}},
	})
	if err != nil {
		return err
	}
	var pages []whence
	for _, env := range []string{"shop-main", borrower} {
		page, err := t.page(ctx, env+".localhost")
		if err != nil {
			return err
		}
		from, err := madeBy(page)
		if err != nil {
			return fmt.Errorf("the page of %s: %w", env, err)
		}
		pages = append(pages, from)
	}
	main, half := pages[0], pages[1]
	if main.env != "shop-main" || half.env != borrower || main.frontend != half.frontend || main.backend == half.backend {
		return dayfly.Errorf(dayfly.CodeFailed, "%s does not borrow the frontend of shop-main: %+v, %+v", borrower, half, main)
	}
	t.say("\n  Who has made the page:")
	w := tabwriter.NewWriter(t.Out, 0, 0, 3, ' ', 0)
	for _, p := range pages {
		fmt.Fprintf(w, "    %s\tfrontend: process %s\tbackend: version %s, process %s\n", p.env, p.frontend, p.version, p.backend)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	environments, processes, err := t.census(ctx)
	if err != nil {
		return err
	}
	t.say("\n  %d environments, %d processes. Without borrowing there would be %d.", environments, processes, environments*len(running))
	return nil
}

// census counts the environments and the processes of their services.
func (t *tour) census(ctx context.Context) (environments, processes int, err error) {
	all, err := t.api.Environments(ctx, "shop")
	if err != nil {
		return 0, 0, err
	}
	pids := map[int]bool{}
	for _, service := range running {
		instances, err := t.api.Instances(ctx, service)
		if err != nil {
			return 0, 0, err
		}
		for _, i := range instances {
			if i.Phase == dayfly.InstanceHealthy {
				pids[i.PID] = true
			}
		}
	}
	return len(all), len(pids), nil
}

// whence says where a page of the shop is from: for which environment it is, the processes that have
// made it, and the backend's version.
type whence struct{ env, frontend, backend, version string }

// These read the foot of the page.
var (
	pageEnv      = regexp.MustCompile(`<li>Environment<b>([^<]+)</b>`)
	pageFrontend = regexp.MustCompile(`<li>Frontend<b>.*process (\d+)<`)
	pageBackend  = regexp.MustCompile(`<li>Backend, version ([^<]+)<b>.*process (\d+)<`)
)

// madeBy reads where a page is from.
func madeBy(page string) (whence, error) {
	env, frontend, backend := pageEnv.FindStringSubmatch(page), pageFrontend.FindStringSubmatch(page), pageBackend.FindStringSubmatch(page)
	if env == nil || frontend == nil || backend == nil {
		return whence{}, fmt.Errorf("it does not say where it is from: %.500s", strings.TrimSpace(page))
	}
	return whence{env[1], frontend[1], backend[2], backend[1]}, nil
}
