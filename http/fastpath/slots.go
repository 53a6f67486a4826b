package fastpath

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// slots bounds the connections that are open. A new one takes the place of the one that
// has waited longest for a request, so that many idle clients keep nobody out.
type slots struct {
	most int // 0: any number

	mu   sync.Mutex
	open map[*slot]struct{}
}

// slot is a connection with its place.
type slot struct {
	net.Conn
	slots *slots
	idle  atomic.Int64 // nanoseconds since 1970 when it began to wait for a request; 0: it does not
}

// take returns a slot for the connection, or nil if all connections have requests.
func (s *slots) take(conn net.Conn) *slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.most > 0 && len(s.open) >= s.most && !s.evict() {
		return nil
	}
	taken := &slot{Conn: conn, slots: s}
	taken.wait()
	s.open[taken] = struct{}{}
	return taken
}

// evict closes the connection that has waited longest. The caller holds the lock.
func (s *slots) evict() bool {
	var longest *slot
	var since int64
	for c := range s.open {
		if idle := c.idle.Load(); idle != 0 && (longest == nil || idle < since) {
			longest, since = c, idle
		}
	}
	if longest == nil {
		return false
	}
	delete(s.open, longest)
	_ = longest.Conn.Close() // its reader learns that it is closed
	return true
}

// Close closes the connection and frees its place.
func (c *slot) Close() error {
	c.slots.mu.Lock()
	delete(c.slots.open, c)
	c.slots.mu.Unlock()
	return c.Conn.Close()
}

func (c *slot) wait() { c.idle.Store(time.Now().UnixNano()) }
func (c *slot) work() { c.idle.Store(0) }

// ConnState is the ConnState of the server that a listener of this package is for.
func ConnState(conn net.Conn, state http.ConnState) {
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok { // TLS
		conn = secure.NetConn()
	}
	if plain, ok := conn.(*plainConn); ok {
		conn = plain.rest.slot
	}
	c, ok := conn.(*slot)
	switch {
	case !ok:
	case state == http.StateActive:
		c.work()
	case state == http.StateNew, state == http.StateIdle:
		c.wait()
	}
}

// refuse closes a connection at once, without waiting for what the client sends.
func refuse(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close() // nothing was sent on it
}
