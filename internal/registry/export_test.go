package registry

// Shared is how many parts the cache remembers, to share them with records that come. It
// may be called while no record comes.
func (c *Cache) Shared() int {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return len(c.pool.definitions) + len(c.pool.variables) + len(c.pool.strings)
}
