package dayfly

import "time"

// Token lets whoever has its secret use the API. The secret itself is kept nowhere.
type Token struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
}
