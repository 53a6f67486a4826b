package http

import (
	"bufio"
	"net/http"
	"strconv"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

func (s *Server) auditRoutes() {
	s.long("GET", "/audit/events", domain.ScopeAuditRead, s.handleAudit)
}

const (
	// auditFlush is how long a line may wait for company on its way out.
	auditFlush = 200 * time.Millisecond
	// auditPatience is how long a reader may take for a buffer's worth: a stream
	// holds a connection to the database while its reader reads.
	auditPatience = 30 * time.Second
	// maxReadings bounds how many look through the log at once.
	maxReadings = 4
)

// lookThroughLog takes one of the few turns to read the log from end to end; done
// gives it back.
func (s *Server) lookThroughLog() (done func(), err error) {
	select {
	case s.readings <- struct{}{}:
		return func() { <-s.readings }, nil
	default:
		return nil, domain.Throttled("too many others are looking through the log; try again")
	}
}

// handleAudit streams the log as it is now, a line of JSON an entry. The last
// line's position is where the next request resumes.
func (s *Server) handleAudit(x *exchange, r *http.Request) error {
	q := readQuery(r)
	f := projections.AuditFilter{Stream: q.text("stream"), Type: q.text("type"), From: q.time("from"), To: q.time("to")}
	if after := q.get("after"); after != "" {
		n, err := strconv.ParseInt(after, 10, 64)
		if err != nil || n < 0 {
			q.refuse("after", "must be the position of an entry")
		}
		f.After = projections.Position(n)
	}
	if err := q.done(); err != nil {
		return err
	}
	done, err := s.lookThroughLog()
	if err != nil {
		return err
	}
	defer done()

	x.Header().Set("Content-Type", "application/x-ndjson")
	control := http.NewResponseController(x)
	out := bufio.NewWriterSize(x, 32<<10)
	flushed := time.Now()
	err = s.queries.Audit(r.Context(), f, func(line []byte) error {
		if out.Available() <= len(line) || time.Since(flushed) > auditFlush {
			// A server that sets no deadlines has none to move.
			_ = control.SetWriteDeadline(time.Now().Add(auditPatience))
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
