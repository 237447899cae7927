// The worker of the shop: packs the orders that wait, once a second.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log.Printf("worker of %s begins", os.Getenv("DAYFLY_ENV"))
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if n, err := pack(ctx); err != nil && ctx.Err() == nil {
			log.Print(err)
		} else if n > 0 {
			log.Printf("packed %d", n)
		}
		select {
		case <-ctx.Done():
			log.Print("worker ends")
			return
		case <-tick.C:
		}
	}
}

func pack(ctx context.Context) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, os.Getenv("BACKEND_URL")+"/api/pack", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var answer struct{ Packed int }
	err = json.NewDecoder(resp.Body).Decode(&answer)
	return answer.Packed, err
}
