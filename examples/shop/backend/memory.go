package main

import "sync"

// memory keeps the orders where there is no database: they go with the process.
type memory struct {
	mu     sync.Mutex
	orders []order
}

func (m *memory) totals() (orders, packed int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range m.orders {
		if o.Packed {
			packed++
		}
	}
	return len(m.orders), packed, nil
}

func (m *memory) add(product string) (order, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := order{ID: len(m.orders) + 1, Product: product}
	m.orders = append(m.orders, o)
	return o, nil
}

func (m *memory) pack() (n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.orders {
		if !m.orders[i].Packed {
			m.orders[i].Packed = true
			n++
		}
	}
	return n, nil
}
