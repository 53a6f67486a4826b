package http

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

// AccessReason is the name of the header in which a caller says why payloads are read.
const AccessReason = "X-Access-Reason"

// accessReason is the header in which a caller says why payloads are read.
var accessReason = headerParam{AccessReason, "why you read what events hold and receivers answer: text in UTF-8, which may be percent-encoded; it goes on record. This server may require it"}

// payloadGuard stands between an operation that may show payloads and its answer: it withholds
// them from a caller without the right, and puts on record that any other reads them.
type payloadGuard struct {
	withhold bool
	record   func(ids []string, asked map[string]string) error
	recorded time.Time // when a stream was last; zero: not yet
}

// guardPayloads returns the guard of a request. Nil lets everything through: a HEAD shows
// nothing, nor do entries of the log of a type that holds none, nor a stream without events.
func (s *Server) guardPayloads(x *request, r *http.Request, mayRead bool) (*payloadGuard, error) {
	what := x.operation.id
	switch {
	case !mayRead:
		return &payloadGuard{withhold: true}, nil
	case r.Method == http.MethodHead, what == auditOperation && !domain.MayHoldPayloads(auditType.of(x)),
		what == projections.StreamReading && !slices.Contains(streamKinds.of(x), kindEvent):
		return nil, nil
	}
	reason, err := s.readReason(r)
	if err != nil {
		return nil, err
	}
	// The record outlives a client that goes away: it may have seen the answer's beginning.
	ctx := context.WithoutCancel(r.Context())
	return &payloadGuard{record: func(ids []string, asked map[string]string) error {
		return s.commands.RecordReading(ctx, x.caller, domain.DataRead{What: what, IDs: ids, Asked: asked, Reason: reason})
	}}, nil
}

func (s *Server) readReason(r *http.Request) (string, error) {
	reason := r.Header.Get(accessReason.name)
	if decoded, err := url.PathUnescape(reason); err == nil {
		reason = decoded
	}
	if reason == "" && s.config.ReasonRequired {
		return "", domain.Invalid(accessReason.name, "is required here: say why you read patients' data")
	}
	return reason, domain.CheckReason(accessReason.name, reason)
}

// answer returns the answer as the caller may see it, or why it must not leave.
func (g *payloadGuard) answer(made madeAnswer) ([]byte, error) {
	if g == nil {
		return made.body, nil
	}
	return g.show(made, func(ids []string) error { return g.record(ids, nil) })
}

// entry is answer for an entry of a stream of the log, in a line; asked is what was asked for.
func (g *payloadGuard) entry(e *projections.Entry, line []byte, asked map[string]string) ([]byte, error) {
	if g == nil || !domain.MayHoldPayloads(e.Type) || !g.withhold && g.isRecorded() {
		return line, nil
	}
	return g.show(madeOf(line), func([]string) error { return g.recordStream(asked) })
}

// show withholds the payloads in the JSON, or puts on record that they are read.
func (g *payloadGuard) show(made madeAnswer, record func(ids []string) error) ([]byte, error) {
	switch {
	case made.payloads.None():
		return made.body, nil
	case g.withhold:
		return made.payloads.Withheld(made.body), nil
	}
	return made.body, record(made.payloads.IDs)
}

// recordSubject puts on record that what is known of a subject is read.
func (g *payloadGuard) recordSubject(subject *projections.Subject) error {
	if g == nil {
		return nil
	}
	return g.record(nil, map[string]string{"subject": uuid.UUID(subject.Owner).String()})
}

// isRecorded reports whether what is streamed now is on record.
func (g *payloadGuard) isRecorded() bool { return time.Since(g.recorded) < projections.StreamRecord }

// recordStream puts on record that payloads are streamed: once, and again where that goes on
// for longer than one record stands for.
func (g *payloadGuard) recordStream(asked map[string]string) error {
	if g.isRecorded() {
		return nil
	}
	g.recorded = time.Now()
	return g.record(nil, asked)
}

// item is entry for an item of the stream, of which it returns the data.
func (g *payloadGuard) item(i *streamItem, asked map[string]string) ([]byte, error) {
	switch {
	case g == nil || i.withheld == nil:
		return i.data, nil
	case g.withhold:
		return i.withheld, nil
	}
	return i.data, g.recordStream(asked)
}
