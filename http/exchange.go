package http

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/medilab/webhooks/commands"
)

// exchange is one request and its answer: the ResponseWriter of every handler.
type exchange struct {
	http.ResponseWriter
	caller  commands.Caller
	route   string // the path's pattern; empty: no such path
	status  int    // 0: nothing is written yet
	written int64
	started time.Time
	err     error // why it was not answered as asked
}

// exchangeOf gives the exchange that a handler of the router was called with.
func exchangeOf(w http.ResponseWriter) *exchange {
	x, ok := w.(*exchange)
	if !ok {
		x = &exchange{ResponseWriter: w, started: time.Now()}
	}
	return x
}

func (x *exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	n, err := x.ResponseWriter.Write(b)
	x.written += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController flush.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// requestIDs names requests: by the caller's own X-Request-Id, or by a number
// that is unique to this process and start.
type requestIDs struct {
	prefix string
	next   *atomic.Uint64
}

func newRequestIDs() requestIDs {
	return requestIDs{prefix: strconv.FormatUint(rand.Uint64(), 36) + "-", next: new(atomic.Uint64)}
}

const maxRequestID = 100

func (ids requestIDs) of(r *http.Request) string {
	if id := r.Header.Get("X-Request-Id"); isRequestID(id) {
		return id
	}
	return ids.prefix + strconv.FormatUint(ids.next.Add(1), 10)
}

// isRequestID lets through what can stand in a log line and a header.
func isRequestID(id string) bool {
	for i := range len(id) {
		c := id[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' && c != '.' && c != ':' {
			return false
		}
	}
	return id != "" && len(id) <= maxRequestID
}
