package http

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/gorilla/mux"
	"golang.org/x/sync/semaphore"

	"github.com/medilab/webhooks/commands"
)

// keptAnswer is an answer as it is kept for repetitions of its request.
type keptAnswer struct {
	Header map[string]string `json:"header"`
	Body   []byte            `json:"body"` // nil: none
}

// keptHeaders are those of answers to what acts.
var keptHeaders = []string{"Location", "ETag"}

// once serves requests that carry an idempotency key once. A repetition is answered as the
// first time. An answer with payloads is not kept: the operation makes it again, see
// commands.TestWebhook, or refuses.
func (s *Server) once(serve handler) handler {
	return func(x *request, r *http.Request) error {
		key, err := readIdempotencyKey(r)
		if err != nil {
			return err
		}
		if key == "" {
			return serve(x, r)
		}
		read := &body{}
		defer read.release()
		asked, err := s.asked(x, r, read)
		if err != nil {
			return err
		}
		ctx, once, err := s.commands.Once(r.Context(), x.caller, key, asked)
		if err != nil {
			return err
		}
		// Those that wait find the first one's answer. Those of other nodes decide on the log.
		turn, leave := s.keys.enter(once.Key(), func() *semaphore.Weighted { return semaphore.NewWeighted(1) })
		defer leave()
		if err := turn.Acquire(ctx, 1); err != nil {
			return commands.Failed("wait for the same request", err)
		}
		defer turn.Release(1)
		answer, err := s.commands.Answer(ctx, once)
		if err == nil && answer == nil {
			if !x.operation.payloads {
				x.keep = s.keeper(ctx, x, once)
			}
			if err = serve(x, r.WithContext(ctx)); err == nil || x.status != 0 || x.operation.payloads {
				return err
			}
			x.keep = nil
			answer, err = s.commands.Repeated(ctx, once, err)
		}
		if err != nil {
			return err
		}
		return x.repeat(answer)
	}
}

// keeper returns what keeps the answer to the request. One that cannot be kept is answered
// all the same: a repetition changes nothing then, and is refused.
func (s *Server) keeper(ctx context.Context, x *request, once *commands.Once) func([]byte) {
	return func(answer []byte) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
		defer cancel()
		if err := s.commands.KeepAnswer(ctx, once, answer); err != nil {
			s.logger.Warn("an answer is not kept", "operation", x.operation.id, "request_id", x.caller.RequestID, "error", err)
		}
	}
}

// asked returns all that makes a request another one. Its body, which read holds, can be read again.
func (s *Server) asked(x *request, r *http.Request, read *body) (string, error) {
	asked := r.Method + " " + s.canonicalPath(x, r) + "\n" + strings.Join(r.Header.Values(ifMatch.name), ",") + "\n"
	if x.operation.body == nil {
		return asked, nil
	}
	if err := read.read(r, x.operation.body.most()); err != nil {
		return "", err
	}
	r.Body = io.NopCloser(bytes.NewReader(read.data))
	return asked + string(read.data), nil
}

// canonicalPath returns the path of the request with one spelling of its webhook and of other ids.
func (s *Server) canonicalPath(x *request, r *http.Request) string {
	variables := mux.Vars(r)
	return pathVariable.ReplaceAllStringFunc(x.operation.path, func(variable string) string {
		name := strings.Trim(variable, "{}")
		value := variables[name]
		if name == "webhook" {
			if w, err := s.namedWebhook(r.Context(), value); err == nil {
				return w.ID.String()
			}
		}
		if id, ok := parseUUID(value); ok && name != "subject" { // a patient's id is text
			return id.String()
		}
		return value
	})
}

// keepAnswer keeps the answer if the request may be repeated.
func (x *request) keepAnswer(body []byte) {
	if x.keep == nil {
		return
	}
	answer := keptAnswer{Header: map[string]string{}, Body: body}
	for _, name := range keptHeaders {
		if value := x.Header().Get(name); value != "" {
			answer.Header[name] = value
		}
	}
	x.keep(encode(answer))
}

// repeat answers as the first time.
func (x *request) repeat(answer []byte) error {
	var kept keptAnswer
	if err := json.Unmarshal(answer, &kept); err != nil {
		return err
	}
	for name, value := range kept.Header {
		x.Header().Set(name, value)
	}
	if kept.Body == nil {
		return x.respond(nil, nil)
	}
	return x.respondJSON(kept.Body)
}
