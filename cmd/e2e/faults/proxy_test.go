package faults

import (
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// proxy stands between the nodes and Postgres, and loses answers when told.
type proxy struct {
	listener net.Listener
	network  string
	address  string

	mu    sync.Mutex
	links map[*link]struct{}
}

type link struct {
	client, server net.Conn
	deaf           atomic.Bool // what the server says is lost
}

// newProxy gives a proxy to the database and its URL by way of it.
func newProxy(t testing.TB, database string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{network: "tcp", address: u.Host, links: map[*link]struct{}{}}
	query := u.Query()
	if dir := query.Get("host"); dir != "" {
		p.network, p.address = "unix", dir+"/.s.PGSQL.5432"
		if port := query.Get("port"); port != "" {
			p.address = dir + "/.s.PGSQL." + port
		}
	}
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.listener.Close() //nolint:errcheck // it ends with the run
		p.loseAnswers(0)
	})
	go p.run()
	query.Del("host")
	query.Del("port")
	query.Set("sslmode", "disable")
	u.Host, u.RawQuery = p.listener.Addr().String(), query.Encode()
	return p, u.String()
}

func (p *proxy) run() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial(p.network, p.address)
		if err != nil {
			client.Close() //nolint:errcheck // nobody is behind it
			continue
		}
		l := &link{client: client, server: server}
		p.mu.Lock()
		p.links[l] = struct{}{}
		p.mu.Unlock()
		go func() {
			io.Copy(server, client) //nolint:errcheck // either end may go at any time
			server.Close()          //nolint:errcheck // as above
		}()
		go func() {
			io.Copy(l, server) //nolint:errcheck // as above
			client.Close()     //nolint:errcheck // as above
			p.mu.Lock()
			delete(p.links, l)
			p.mu.Unlock()
		}()
	}
}

// Write passes on what the server says, or loses it.
func (l *link) Write(b []byte) (int, error) {
	if l.deaf.Load() {
		return len(b), nil
	}
	return l.client.Write(b)
}

// loseAnswers loses all that the server says on the connections of now for the
// time, and then cuts them: what was committed meanwhile nobody was told.
func (p *proxy) loseAnswers(d time.Duration) {
	p.mu.Lock()
	var now []*link
	for l := range p.links {
		l.deaf.Store(true)
		now = append(now, l)
	}
	p.mu.Unlock()
	time.Sleep(d)
	for _, l := range now {
		l.client.Close() //nolint:errcheck // that is the fault
		l.server.Close() //nolint:errcheck // as above
	}
}
