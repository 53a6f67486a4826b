package http

import (
	"bufio"
	"net/http"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

var (
	auditStream = textParam("stream", "entries of one stream, such as webhook-<uuid>")
	auditType   = textParam("type", "entries of one type, or of a group (webhook.*)")
)

func (s *Server) auditOperations() []operation {
	return []operation{{
		method: "GET", path: "/audit/events", id: "auditEvents", summary: "The log in order, a line of JSON an entry", scope: domain.ScopeAuditRead,
		query: []queryParam{position, auditStream, auditType, from, to}, answer: text, media: "application/x-ndjson",
		unbounded: true, serve: s.streamAudit,
	}}
}

const (
	// maxLogReads bounds the requests that read the whole log at once.
	maxLogReads = 4
	readingLog  = "looking through the log"

	// auditFlush is how long a line may wait for others.
	auditFlush = 200 * time.Millisecond
)

// streamAudit streams the log as it is now, a line of JSON an entry. The last line's
// position is where the next request resumes.
func (s *Server) streamAudit(x *request, r *http.Request) error {
	release, err := s.logReads.acquire(x.caller.Actor, readingLog)
	if err != nil {
		return err
	}
	defer release()
	x.Header().Set("Content-Type", "application/x-ndjson")
	control := http.NewResponseController(x)
	out := bufio.NewWriterSize(x, 32<<10)
	flushed := time.Now()
	f := projections.AuditFilter{After: position.of(x), Stream: auditStream.of(x), Type: auditType.of(x), From: from.of(x), To: to.of(x)}
	err = s.queries.Audit(r.Context(), f, func(line []byte) error {
		if out.Available() <= len(line) || time.Since(flushed) > auditFlush {
			if err := out.Flush(); err != nil {
				return err
			}
			if err := control.Flush(); err != nil {
				return err
			}
			flushed = time.Now()
		}
		if _, err := out.Write(line); err != nil {
			return err
		}
		return out.WriteByte('\n')
	})
	if err != nil {
		return err
	}
	return out.Flush()
}
