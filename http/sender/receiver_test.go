package sender

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// receiver is a raw TCP server: odd answers are written byte by byte.
type receiver struct {
	url   string
	conns atomic.Int64
	// requests counts requests that arrived whole.
	requests atomic.Int64
}

// newReceiver serves each connection with answer, request by request, until it
// returns false. quit is closed when the test ends.
func newReceiver(t testing.TB, answer func(c net.Conn, req *http.Request, quit <-chan struct{}) (goOn bool)) *receiver {
	t.Helper()
	return serveOn(t, listen(t, "127.0.0.1:0"), answer)
}

func listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func serveOn(t testing.TB, l net.Listener, answer func(c net.Conn, req *http.Request, quit <-chan struct{}) bool) *receiver {
	t.Helper()
	r := &receiver{url: "http://" + l.Addr().String()}
	quit := make(chan struct{})
	var wg sync.WaitGroup
	serve := func(c net.Conn) {
		defer wg.Done()
		defer c.Close()
		stop := context.AfterFunc(contextOf(quit), func() { c.Close() })
		defer stop()
		br := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				return
			}
			r.requests.Add(1)
			if !answer(c, req, quit) {
				return
			}
		}
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.conns.Add(1)
			wg.Add(1)
			go serve(c)
		}
	}()
	t.Cleanup(func() {
		close(quit)
		l.Close()
		wg.Wait()
	})
	return r
}

// contextOf ends when quit is closed.
func contextOf(quit <-chan struct{}) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-quit
		cancel()
	}()
	return ctx
}

func newClient(t testing.TB, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func allow(t testing.TB, s string) Targets {
	t.Helper()
	targets, err := ParseTargets(s)
	if err != nil {
		t.Fatal(err)
	}
	return targets
}

func request(url string) Request {
	return Request{
		URL:     url,
		Header:  []Field{{Name: "Content-Type", Value: "application/json"}, {Name: "User-Agent", Value: "MediLab-Webhook/1.0"}},
		Body:    []byte(`{"event_type":"patient.created"}`),
		Timeout: 20 * time.Second,
	}
}

// say answers with these bytes and keeps the connection.
func say(format string, args ...any) func(net.Conn, *http.Request, <-chan struct{}) bool {
	return func(c net.Conn, _ *http.Request, _ <-chan struct{}) bool {
		_, err := fmt.Fprintf(c, format, args...)
		return err == nil
	}
}

// sayAndClose answers and closes the connection.
func sayAndClose(format string, args ...any) func(net.Conn, *http.Request, <-chan struct{}) bool {
	return func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
		say(format, args...)(c, req, quit)
		return false
	}
}

// sayAndHang answers and then says nothing for ever.
func sayAndHang(format string, args ...any) func(net.Conn, *http.Request, <-chan struct{}) bool {
	return func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
		say(format, args...)(c, req, quit)
		<-quit
		return false
	}
}
