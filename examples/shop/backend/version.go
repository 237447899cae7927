package main

const (
	version = "1"
	colour  = "#2f6f5e"
	slogan  = "Everything for a life of one day"
)

func products() []product {
	return []product{
		{"Reed to sit on", "🌾", 120},
		{"Morning dew", "💧", 80},
		{"Evening light", "🌅", 450},
	}
}
