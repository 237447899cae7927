// The backend of the shop: goods and orders. It keeps them in PostgreSQL where it is given a database, else in memory.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

type product struct {
	Name  string `json:"name"`
	Icon  string `json:"icon"`
	Price int    `json:"price"` // in cents
}

type order struct {
	ID      int    `json:"id"`
	Product string `json:"product"`
	Packed  bool   `json:"packed"`
}

// store is where the orders are.
type store interface {
	totals() (orders, packed int, err error)
	add(product string) (order, error)
	pack() (int, error) // all that wait
}

type shop struct{ store }

func main() {
	s := &shop{&memory{}}
	if address := cmp.Or(os.Getenv("DATABASE_URL"), os.Getenv("DB_URL")); address != "" {
		p, err := openPostgres(address)
		if err != nil {
			log.Fatal(err)
		}
		s.store = database{p}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("GET /api/shop", s.show)
	mux.HandleFunc("POST /api/orders", s.order)
	mux.HandleFunc("POST /api/pack", s.pack)

	server := &http.Server{Addr: ":" + os.Getenv("PORT"), Handler: mux}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		quiet, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		server.Shutdown(quiet)
	}()
	log.Printf("backend version %s of %s listens on port %s", version, os.Getenv("DAYFLY_ENV"), os.Getenv("PORT"))
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
}

// show answers what the frontend needs for its page.
func (s *shop) show(w http.ResponseWriter, r *http.Request) {
	orders, packed, err := s.totals()
	if err != nil {
		unable(w, err)
		return
	}
	answer(w, map[string]any{
		"version": version, "slogan": slogan, "colour": colour, "products": products(),
		"orders": orders, "packed": packed,
		"env": os.Getenv("DAYFLY_ENV"), "commit": os.Getenv("DAYFLY_VERSION"), "pid": os.Getpid(),
	})
}

func (s *shop) order(w http.ResponseWriter, r *http.Request) {
	name := r.FormValue("product")
	for _, p := range products() {
		if p.Name != name {
			continue
		}
		o, err := s.add(name)
		if err != nil {
			unable(w, err)
			return
		}
		log.Printf("order %d: %s", o.ID, o.Product)
		w.WriteHeader(http.StatusCreated)
		answer(w, o)
		return
	}
	http.Error(w, "there is no "+strconv.Quote(name)+" in this shop", http.StatusUnprocessableEntity)
}

// pack packs all orders that wait and answers how many.
func (s *shop) pack(w http.ResponseWriter, r *http.Request) {
	n, err := s.store.pack()
	if err != nil {
		unable(w, err)
		return
	}
	answer(w, map[string]int{"packed": n})
}

// unable says that the orders cannot be reached; why is for the log alone.
func unable(w http.ResponseWriter, err error) {
	log.Print(err)
	http.Error(w, "the orders cannot be reached", http.StatusServiceUnavailable)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		log.Print(err)
	}
}
