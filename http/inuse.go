package http

import "sync"

// inUse keeps a value for each key while somebody uses it.
type inUse[K comparable, V any] struct {
	mu  sync.Mutex
	all map[K]*used[V]
}

type used[V any] struct {
	value V
	users int
}

// enter returns the value of the key, which the first user makes. leave must be called.
func (u *inUse[K, V]) enter(key K, make func() V) (value V, leave func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	one := u.all[key]
	if one == nil {
		if u.all == nil {
			u.all = map[K]*used[V]{}
		}
		one = &used[V]{value: make()}
		u.all[key] = one
	}
	one.users++
	return one.value, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if one.users--; one.users == 0 {
			delete(u.all, key)
		}
	}
}
