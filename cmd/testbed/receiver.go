package testbed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
)

// Receiver is an HTTP server with a path for each outside system that webhooks call.
type Receiver struct {
	URL string

	server *http.Server
	next   atomic.Int64
	byPath sync.Map // string -> Answer
}

// Answer answers a call whose body has arrived whole; the body is valid until it returns.
// Without it the answer is 200.
type Answer func(w http.ResponseWriter, r *http.Request, body []byte)

// Listen starts a receiver on loopback.
func Listen() (*Receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Receiver{URL: "http://" + l.Addr().String()}
	r.server = &http.Server{Handler: r, ErrorLog: log.New(io.Discard, "", 0)}
	go func() {
		if err := r.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			panic(fmt.Sprintf("the receiver broke: %v", err)) // nothing seen after this means anything
		}
	}()
	return r, nil
}

// Close ends the receiver and its connections.
func (r *Receiver) Close() error { return r.server.Close() }

// Handle adds an outside system and returns its URL.
func (r *Receiver) Handle(answer Answer) (url string) {
	path := "/t/" + strconv.FormatInt(r.next.Add(1), 10)
	r.byPath.Store(path, answer)
	return r.URL + path
}

// Forget removes an outside system: later calls to it are answered 410.
func (r *Receiver) Forget(url string) { r.byPath.Delete(url[len(r.URL):]) }

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// ServeHTTP implements http.Handler.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	answer, ok := r.byPath.Load(req.URL.Path)
	if !ok {
		w.WriteHeader(http.StatusGone)
		return
	}
	body := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(body)
	body.Reset()
	if _, err := body.ReadFrom(req.Body); err != nil {
		return // the caller was killed while it sent: no call
	}
	answer.(Answer)(w, req, body.Bytes())
}
