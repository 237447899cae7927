// The frontend of the shop: one page, made from what the backend says.
package main

import (
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

//go:embed page.html
var files embed.FS

type shop struct {
	Version, Slogan, Env, Commit string
	Colour                       template.CSS
	Orders, Packed, PID          int
	Products                     []struct {
		Name, Icon string
		Price      int
	}
}

var client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

func main() {
	page := template.Must(template.New("page.html").Funcs(template.FuncMap{
		"euros": func(cents int) string { return fmt.Sprintf("%d.%02d €", cents/100, cents%100) },
	}).ParseFS(files, "page.html"))
	backend := os.Getenv("BACKEND_URL")

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		var s shop
		if err := call(r, http.MethodGet, backend+"/api/shop", nil, &s); err != nil {
			http.Error(w, "the backend does not answer: "+err.Error(), http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		// Another environment may borrow this frontend: the header says for which one it is asked.
		err := page.Execute(w, map[string]any{
			"Shop": s, "For": cmp.Or(r.Header.Get("X-Dayfly-Env"), os.Getenv("DAYFLY_ENV")), "Env": os.Getenv("DAYFLY_ENV"),
			"Commit": short(os.Getenv("DAYFLY_VERSION")), "BackendCommit": short(s.Commit), "PID": os.Getpid(),
		})
		if err != nil {
			log.Print(err)
		}
	})
	mux.HandleFunc("POST /order", func(w http.ResponseWriter, r *http.Request) {
		form := url.Values{"product": {r.FormValue("product")}}
		if err := call(r, http.MethodPost, backend+"/api/orders", form, &struct{}{}); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})

	server := &http.Server{Addr: ":" + os.Getenv("PORT"), Handler: mux}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		quiet, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		server.Shutdown(quiet)
	}()
	log.Printf("frontend of %s listens on port %s; its backend is %s", os.Getenv("DAYFLY_ENV"), os.Getenv("PORT"), backend)
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
}

// call asks the backend and hands on the headers that say for whom.
func call(r *http.Request, method, address string, form url.Values, answer any) error {
	req, err := http.NewRequestWithContext(r.Context(), method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, name := range []string{"X-Dayfly-Env", "Baggage", "Traceparent", "X-Request-Id"} {
		if v := r.Header.Get(name); v != "" {
			req.Header.Set(name, v)
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return fmt.Errorf("the backend answered %s", resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

func short(commit string) string { return commit[:min(7, len(commit))] }
