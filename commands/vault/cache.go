package vault

// cache keeps the values that were used last, at least most and at most twice as many.
type cache[K comparable, V any] struct {
	most       int
	young, old map[K]V
}

func newCache[K comparable, V any](most int) cache[K, V] {
	return cache[K, V]{most: most, young: map[K]V{}}
}

func (c *cache[K, V]) get(key K) (V, bool) {
	value, ok := c.young[key]
	if !ok {
		if value, ok = c.old[key]; ok {
			c.put(key, value)
		}
	}
	return value, ok
}

func (c *cache[K, V]) put(key K, value V) {
	if len(c.young) >= c.most {
		c.old, c.young = c.young, map[K]V{}
	}
	c.young[key] = value
}

// drop drops the value of the key, or of every key if it is nil, for which gone returns true.
func (c *cache[K, V]) drop(key *K, gone func(K, V) bool) {
	for _, kept := range []map[K]V{c.young, c.old} {
		if key != nil {
			if value, ok := kept[*key]; ok && gone(*key, value) {
				delete(kept, *key)
			}
			continue
		}
		for k, value := range kept {
			if gone(k, value) {
				delete(kept, k)
			}
		}
	}
}

func (c *cache[K, V]) clear() { c.young, c.old = map[K]V{}, nil }
