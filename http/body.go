package http

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

// Limits of bodies (contract section 2).
const (
	maxEventBody      = domain.MaxEventBytes
	maxManagementBody = 1 << 20
)

// body is a request's body. Its buffer is reused when the request ends.
type body struct {
	data  []byte
	taken int64 // of largeBodies
}

// bodies keeps buffers between requests, except the large ones.
var bodies = sync.Pool{New: func() any { return &body{data: make([]byte, 0, 4096)} }}

const maxKeptBody = 256 << 10

func (b *body) release() {
	if b.taken > 0 {
		largeBodies.Release(b.taken)
		b.taken = 0
	}
	if cap(b.data) <= maxKeptBody {
		b.data = b.data[:0]
		bodies.Put(b)
	}
}

// largeBodies bounds the memory of all large bodies of the process, which ten megabytes a
// request do not bound when many come at once.
var largeBodies = semaphore.NewWeighted(256 << 20)

// grow makes room for more of the body. Small bodies do not count: a connection costs as
// much.
func (b *body) grow() error {
	const least = 512
	size := cap(b.data) + max(cap(b.data), least)
	if size > maxKeptBody {
		if !largeBodies.TryAcquire(int64(size) - b.taken) {
			return domain.Throttled("too many large requests at once; try again")
		}
		b.taken = int64(size)
	}
	b.data = slices.Grow(b.data, size-len(b.data))
	return nil
}

// readJSON returns the body if it passes domain.CheckJSON; an optional one that is empty
// is {}. The bytes are the request's: they are reused when it ends.
func (x *request) readJSON(r *http.Request, limit int, optional bool) ([]byte, error) {
	if err := checkMediaType(r); err != nil {
		return nil, err
	}
	if r.ContentLength > int64(limit) {
		return nil, tooLarge(limit)
	}
	x.body = bodies.Get().(*body)
	if err := x.body.read(r, limit); err != nil {
		return nil, err
	}
	data := x.body.data
	if optional && len(data) == 0 {
		data = []byte("{}")
	}
	task := x.limiter.Task()
	defer task.End()
	if err := task.Spend(r.Context(), len(data)); err != nil {
		return nil, commands.Failed("check a body", err)
	}
	return data, domain.CheckJSON(data)
}

func (b *body) read(r *http.Request, limit int) error {
	if n := int(r.ContentLength); n >= cap(b.data) {
		b.data = make([]byte, 0, min(n+1, maxKeptBody)) // a caller may promise more than it sends
	}
	for {
		if len(b.data) == cap(b.data) {
			if err := b.grow(); err != nil {
				return err
			}
		}
		n, err := r.Body.Read(b.data[len(b.data):cap(b.data)])
		b.data = b.data[:len(b.data)+n]
		switch {
		case len(b.data) > limit:
			return tooLarge(limit)
		case err == io.EOF: //nolint:errorlint // a Reader's own word
			return nil
		case err != nil:
			return &domain.Error{Kind: domain.KindMalformed, Message: "the body ended too early", Err: err}
		}
	}
}

// discard reads on for a while after the answer: many clients read an answer only when
// they have sent everything, and would see a broken connection instead. One that asks
// first (Expect) needs no such help, and one that sends slowly gets none.
func discard(x *request, r *http.Request) {
	const most, patience = 4 * maxEventBody, 3 * time.Second
	if r.Header.Get("Expect") != "" {
		return
	}
	control := http.NewResponseController(x)
	if control.Flush() == nil && control.SetReadDeadline(time.Now().Add(patience)) == nil {
		_, _ = io.CopyN(io.Discard, r.Body, most) // whatever becomes of it, the answer is out
	}
}

func tooLarge(limit int) error {
	return domain.TooLarge(fmt.Sprintf("the body is over %d MB", limit>>20))
}

// checkMediaType accepts JSON, and what does not say what it is.
func checkMediaType(r *http.Request) error {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return &refusal{notJSON, "send the body without a Content-Encoding"}
	}
	text := r.Header.Get("Content-Type")
	// curl's -d claims a form, whatever it sends.
	if text == "" || text == "application/json" || text == "application/x-www-form-urlencoded" {
		return nil
	}
	media, params, err := mime.ParseMediaType(text)
	if err != nil || media != "application/json" && !strings.HasSuffix(media, "+json") {
		return &refusal{notJSON, "send Content-Type: application/json"}
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "us-ascii") {
		return &refusal{notJSON, "send the body in UTF-8"}
	}
	return nil
}
