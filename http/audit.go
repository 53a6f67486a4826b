package http

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

var (
	auditStream   = textParam("stream", "entries of one stream, such as webhook-<uuid>")
	auditType     = textParam("type", "entries of one type, or of a group (webhook.*)")
	auditWhom     = textParam("webhook", "what is about one webhook (id or number): its changes, deliveries, replays and alerts")
	auditEvent    = idParam[domain.EventID]("event", "one event, its deliveries and their batches")
	accessSubject = textParam("subject", "what is about this patient: the value at MEDILAB_SUBJECT. A replay of the log counts for everybody")
	auditActor    = textParam("actor", "entries by one actor: as the log names it, or the id or name of a token")
)

const auditOperation = "auditEvents"

func (s *Server) auditOperations() []operation {
	return []operation{{
		method: "GET", path: "/audit/events", id: auditOperation, summary: "The log in order, a line of JSON an entry. Where after is in what is archived it is 410, and archived_to says from where on to resume", scope: domain.ScopeAuditRead,
		query: []queryParam{position, auditStream, auditType, from, to, auditWhom, auditEvent, correlationID, auditActor}, payloads: true, answer: text, media: ndjson, goes: true,
		unbounded: true, serve: s.ofAsked(auditWhom, s.streamAudit),
	}, {
		method: "GET", path: "/audit/access", id: "listAccess", summary: "Who was shown payloads, which, when and why, newest first; a page may be short and have more after it", scope: domain.ScopeAuditRead,
		query: []queryParam{accessSubject, auditEvent, auditActor, from, to, limit, cursor}, answer: listOf[projections.Access], verbatim: true, serve: s.listAccess,
	}}
}

func (s *Server) listAccess(x *request, r *http.Request) error {
	f := projections.AccessFilter{
		Event: auditEvent.of(x), Actor: auditActor.of(x), From: from.of(x), To: to.of(x), Limit: limit.of(x), Cursor: cursor.of(x),
	}
	if id := accessSubject.of(x); id != "" {
		var err error
		if f.Subject, err = s.subject(r.Context(), id); err != nil {
			return err
		}
		if err := x.acquire(s.logReads); err != nil {
			return err
		}
	}
	return s.answer(x, r, func(ctx context.Context, q *projections.Projections) (any, error) { return q.Accesses(ctx, f) })
}

// askedFor returns the query of a request, for the record.
func askedFor(r *http.Request) map[string]string {
	asked := map[string]string{"after": "0"} // all of it
	for name, values := range r.URL.Query() {
		asked[name] = values[0]
	}
	return asked
}

const (
	// maxLogReads bounds the requests that read the whole log at once.
	maxLogReads = 4

	// auditFlush is how long a line may wait for others.
	auditFlush = 200 * time.Millisecond
)

// streamAudit streams the log as it is now, a line of JSON an entry. The last line's
// position is where the next request resumes.
func (s *Server) streamAudit(x *request, r *http.Request, w domain.Webhook) error {
	f := projections.AuditFilter{
		After: position.of(x), Stream: auditStream.of(x), Type: auditType.of(x), From: from.of(x), To: to.of(x),
		Webhook: w.ID, Event: auditEvent.of(x), CorrelationID: correlationID.of(x), Actor: auditActor.of(x),
	}
	if r.URL.Query().Has(position.name) {
		if err := s.queries.CheckArchived(r.Context(), f); err != nil {
			return err
		}
	}
	if err := x.acquire(s.logReads); err != nil {
		return err
	}
	out := newLineWriter(x)
	var line []byte
	asked := askedFor(r)
	_, err := query(r.Context(), s, func(ctx context.Context, q *projections.Projections) (struct{}, error) {
		return struct{}{}, q.Audit(ctx, f, func(e projections.Entry) (err error) {
			if line, err = x.payloads.entry(&e, e.AppendLine(line[:0]), asked); err != nil {
				return err
			}
			f.After = e.Position // the primary goes on from here if the standby fails
			return out.write(line)
		})
	})
	if err != nil {
		return err
	}
	return out.out.Flush()
}

// ndjson is the media type of lines of JSON.
const ndjson = "application/x-ndjson"

// lineWriter streams lines of JSON. None waits longer than auditFlush for the next.
type lineWriter struct {
	out     *bufio.Writer
	control *http.ResponseController
	flushed time.Time
}

func newLineWriter(x *request) *lineWriter {
	const size = 32 << 10
	x.Header().Set("Content-Type", ndjson)
	return &lineWriter{bufio.NewWriterSize(x, size), http.NewResponseController(x), time.Now()}
}

func (w *lineWriter) write(line []byte) error {
	if w.out.Available() <= len(line) || time.Since(w.flushed) > auditFlush {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if _, err := w.out.Write(line); err != nil {
		return err
	}
	return w.out.WriteByte('\n')
}

// writeNow writes an encoded line that waits for no other.
func (w *lineWriter) writeNow(line []byte) error {
	return errors.Join(w.write(appendLine(nil, line)), w.flush())
}

func (w *lineWriter) flush() error {
	w.flushed = time.Now()
	return errors.Join(w.out.Flush(), w.control.Flush())
}
