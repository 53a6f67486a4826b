package http

import (
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/eventstore/cpulimit"
)

// request is the state of one request, and the ResponseWriter of its handler.
type request struct {
	http.ResponseWriter
	operation *operation // nil: none matches
	caller    commands.Caller
	query     map[string]any    // read by the operation's params
	versions  commands.Versions // that a webhook is changed from, by If-Match; nil: any
	body      *body             // released when the request ends
	held      *heldAnswer       // likewise
	release   func()            // likewise: a turn
	payloads  *payloadGuard     // nil: the operation shows none
	sent      http.Header       // with the request
	keep      func([]byte)      // the answer, before it is written; nil: the request has no key
	patience  time.Duration     // for a client that reads
	cut       time.Time         // when the answer must be read; zero: it is a stream
	deadline  time.Time         // of the write under way
	status    int               // 0: nothing is written yet
	limiter   *cpulimit.Limiter
	written   int64
	started   time.Time
	span      trace.Span // nil: none
	err       error      // why it was not answered as asked
}

// route returns the path pattern of the operation, or "" if the path has none.
func (x *request) route() string {
	if x.operation == nil {
		return ""
	}
	return x.operation.pattern
}

func (x *request) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

func (x *request) Write(b []byte) (n int, err error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	for first := true; err == nil && (first || len(b) > 0); first = false {
		x.extendDeadline()
		var wrote int
		wrote, err = x.ResponseWriter.Write(b[:min(len(b), writeChunk)])
		b, n = b[wrote:], n+wrote
	}
	x.written += int64(n)
	return n, err
}

// extendDeadline lets the next chunk take its time, so that an answer is cut off when it
// makes no progress.
func (x *request) extendDeadline() {
	now := time.Now()
	if x.deadline.Sub(now) > x.patience*3/4 {
		return
	}
	if x.deadline = now.Add(x.patience); !x.cut.IsZero() && x.cut.Before(x.deadline) {
		x.deadline = x.cut
	}
	// A connection that has no deadlines has none to move.
	_ = http.NewResponseController(x.ResponseWriter).SetWriteDeadline(x.deadline)
}

// acquire takes a turn, until the request ends.
func (x *request) acquire(t *turns) (err error) {
	x.release, err = t.acquire(x.caller.Actor)
	return err
}

// FlushError sends what was written; the status is still open while nothing was.
func (x *request) FlushError() error {
	if x.status == 0 {
		return nil
	}
	return http.NewResponseController(x.ResponseWriter).Flush()
}

// Unwrap lets http.ResponseController flush, and set deadlines.
func (x *request) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// requestIDs names requests: by the caller's own X-Request-Id, or by a number that is
// unique to this process and start.
type requestIDs struct {
	prefix string
	next   *atomic.Uint64
}

func newRequestIDs() requestIDs {
	return requestIDs{prefix: strconv.FormatUint(rand.Uint64(), 36) + "-", next: new(atomic.Uint64)}
}

func (ids requestIDs) of(r *http.Request) string {
	if id := r.Header.Get("X-Request-Id"); isRequestID(id) {
		return id
	}
	const longest = 40
	id := append(make([]byte, 0, longest), ids.prefix...)
	return string(strconv.AppendUint(id, ids.next.Add(1), 10))
}

// isRequestID accepts what can stand in a log line and a header.
func isRequestID(id string) bool {
	const longest, allowed = 100, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.:"
	return id != "" && len(id) <= longest && strings.Trim(id, allowed) == ""
}
