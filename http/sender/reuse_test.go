package sender

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// once answers the first request of a connection and closes it when another arrives,
// as a receiver does whose time for idle connections is over at that moment.
func once() func(net.Conn, *http.Request, <-chan struct{}) bool {
	var answered sync.Map
	return func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
		_, again := answered.LoadOrStore(c, true)
		return !again && say(empty200)(c, req, quit)
	}
}

// A call that is lost because the receiver closed the connection meanwhile is the last
// one to that address that is: what follows gets a connection of its own.
func TestOneResetTeaches(t *testing.T) {
	eachTransport(t, once(), func(t *testing.T, c *Client, r *receiver) {
		for _, path := range []string{"/0", "/1"} { // two webhooks at one address
			speakHTTP1(t, c, r.url+path)
		}
		for n, want := range []Outcome{Success, Reset, Success, Success, Success} {
			if res := c.Send(t.Context(), request(fmt.Sprintf("%s/%d", r.url, n%2))); res.Outcome != want {
				t.Fatalf("call %d: %s (%s), want %s", n+1, res.Outcome, res.Error, want)
			}
		}
		if n := r.requests.Load(); n != 5 {
			t.Errorf("the receiver saw %d requests, want each of 5 once", n)
		}
	})
}

// A retry gets a new connection even where others are kept.
func TestFreshConnection(t *testing.T) {
	eachTransport(t, once(), func(t *testing.T, c *Client, r *receiver) {
		for n := range 3 {
			req := request(r.url)
			req.Fresh = true
			if res := c.Send(t.Context(), req); res.Outcome != Success {
				t.Fatalf("call %d: %s (%s)", n+1, res.Outcome, res.Error)
			}
		}
	})
}

// Every event arrives, in three attempts and with each attempt seen at most once,
// at a receiver that closes connections a moment after its answers without notice.
func TestReceiverThatClosesAMomentLater(t *testing.T) {
	const events, callers = 200, 8
	var seen sync.Map
	r := newReceiver(t, func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
		if _, again := seen.LoadOrStore(req.RequestURI, true); again {
			t.Errorf("%s arrived twice", req.RequestURI)
		}
		if !say(empty200)(c, req, quit) {
			return false
		}
		time.AfterFunc(time.Millisecond, func() { c.Close() })
		return true
	})
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	var wg sync.WaitGroup
	numbers := make(chan int)
	for range callers {
		wg.Go(func() {
			for n := range numbers {
				res := Result{}
				for attempt := 1; attempt <= 3 && res.Outcome != Success; attempt++ {
					req := request(fmt.Sprintf("%s/%d/%d", r.url, n, attempt))
					req.Fresh = attempt > 1
					res = c.Send(t.Context(), req)
				}
				if res.Outcome != Success {
					t.Errorf("event %d: %s (%s)", n, res.Outcome, res.Error)
				}
			}
		})
	}
	for n := range events {
		numbers <- n
	}
	close(numbers)
	wg.Wait()
}

// A large body is sent while the answer is read, and a connection that was not sent
// all of it is not used again.
func TestLargeBodies(t *testing.T) {
	eachTransport(t, say(empty200), func(t *testing.T, c *Client, r *receiver) {
		for range 3 {
			req := request(r.url)
			req.Body = make([]byte, 5<<20)
			if res := c.Send(t.Context(), req); res.Outcome != Success {
				t.Fatalf("%s (%s)", res.Outcome, res.Error)
			}
		}
		if n := r.requests.Load(); n != 3 {
			t.Errorf("the receiver saw %d requests, want 3", n)
		}
	})
	l := listen(t, "127.0.0.1:0")
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go func() {
				if _, err := io.ReadFull(c, make([]byte, 100)); err == nil {
					_, _ = io.WriteString(c, empty200) // and the rest is left unread
				}
			}()
		}
	}()
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	for n := range 2 {
		req := request("http://" + l.Addr().String())
		req.Body = make([]byte, 20<<20)
		if res := c.Send(t.Context(), req); res.Outcome != Success {
			t.Fatalf("early answer %d: %s (%s)", n+1, res.Outcome, res.Error)
		}
	}
}
