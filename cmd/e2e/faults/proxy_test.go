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

// proxy stands between the nodes and Postgres, and loses answers, or all that is said, when
// told.
type proxy struct {
	listener net.Listener
	network  string
	address  string
	gate     sync.RWMutex // what passes has it; see cut

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
	network, address := "tcp", u.Host
	query := u.Query()
	if dir := query.Get("host"); dir != "" {
		network, address = "unix", dir+"/.s.PGSQL.5432"
		if port := query.Get("port"); port != "" {
			address = dir + "/.s.PGSQL." + port
		}
	}
	p := standBefore(t, network, address)
	query.Del("host")
	query.Del("port")
	query.Set("sslmode", "disable")
	u.Host, u.RawQuery = p.listener.Addr().String(), query.Encode()
	return p, u.String()
}

// standBefore makes a proxy to the address.
func standBefore(t testing.TB, network, address string) *proxy {
	t.Helper()
	p := &proxy{network: network, address: address, links: map[*link]struct{}{}}
	var err error
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.listener.Close() //nolint:errcheck // it ends with the run
		p.loseAnswers(0)
	})
	go p.run()
	return p
}

// cut lets nothing pass until mend, as a network that drops all packets: connections stay, and
// new ones are answered by nobody.
func (p *proxy) cut() (mend func()) {
	p.gate.Lock()
	return sync.OnceFunc(p.gate.Unlock)
}

// gated passes on what is written while nothing is cut.
type gated struct {
	io.Writer
	proxy *proxy
}

func (g gated) Write(b []byte) (int, error) {
	g.proxy.gate.RLock()
	defer g.proxy.gate.RUnlock()
	return g.Writer.Write(b)
}

func (p *proxy) run() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.gate.RLock()
		//lint:ignore SA2001 it waits while all is cut
		p.gate.RUnlock()
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
			io.Copy(gated{server, p}, client) //nolint:errcheck // either end may go at any time
			server.Close()                    //nolint:errcheck // as above
		}()
		go func() {
			io.Copy(gated{l, p}, server) //nolint:errcheck // as above
			client.Close()               //nolint:errcheck // as above
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
