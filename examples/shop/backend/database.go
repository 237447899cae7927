package main

import (
	"fmt"
	"strconv"
)

// database keeps the orders in PostgreSQL, whose tables are those of db/orders.sql.
type database struct{ *postgres }

func (d database) totals() (orders, packed int, err error) {
	rows, err := d.query("SELECT orders, packed FROM totals")
	if err != nil {
		return 0, 0, err
	}
	if len(rows) != 1 {
		return 0, 0, fmt.Errorf("totals has %d rows", len(rows))
	}
	if orders, err = strconv.Atoi(rows[0][0]); err == nil {
		packed, err = strconv.Atoi(rows[0][1])
	}
	return orders, packed, err
}

func (d database) add(product string) (order, error) {
	rows, err := d.query("INSERT INTO orders (product) VALUES ($1) RETURNING id", product)
	if err != nil {
		return order{}, err
	}
	id, err := strconv.Atoi(rows[0][0])
	return order{ID: id, Product: product}, err
}

func (d database) pack() (int, error) {
	// Most of the time there is nothing to pack, and what changes no row writes nothing.
	rows, err := d.query("UPDATE orders SET packed = true WHERE NOT packed RETURNING id")
	return len(rows), err
}
