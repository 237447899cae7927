// The backend of the shop: goods and orders, kept in memory.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
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

type shop struct {
	mu     sync.Mutex
	orders []order
}

func main() {
	s := &shop{}
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
	s.mu.Lock()
	packed := 0
	for _, o := range s.orders {
		if o.Packed {
			packed++
		}
	}
	orders := len(s.orders)
	s.mu.Unlock()
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
		s.mu.Lock()
		o := order{ID: len(s.orders) + 1, Product: name}
		s.orders = append(s.orders, o)
		s.mu.Unlock()
		log.Printf("order %d: %s", o.ID, o.Product)
		w.WriteHeader(http.StatusCreated)
		answer(w, o)
		return
	}
	http.Error(w, "there is no "+strconv.Quote(name)+" in this shop", http.StatusUnprocessableEntity)
}

// pack packs all orders that wait and answers how many.
func (s *shop) pack(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	n := 0
	for i := range s.orders {
		if !s.orders[i].Packed {
			s.orders[i].Packed = true
			n++
		}
	}
	s.mu.Unlock()
	answer(w, map[string]int{"packed": n})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		log.Print(err)
	}
}
