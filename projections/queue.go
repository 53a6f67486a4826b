package projections

import (
	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Queue keeps medilab.queue, one row a delivery that is not at its end, in the
// transaction that appends the event which says so. It never lags. A delivery
// that waits for others to go with has its row in medilab.batch_members instead.
type Queue struct {
	// Claims says which new deliveries this node makes itself, at once. Nil:
	// none; their rows wait to be claimed.
	Claims Claims
}

// Claims is asked, in the appender, about each delivery that is about to be
// queued. Begin comes before the first of a batch and forgets what was claimed
// for a batch that was not committed.
type Claims interface {
	Begin()
	// Claim gives the node that takes the delivery, or 0.
	Claim(event domain.EventID, d domain.Dispatch, size int) (node int64)
}

// Statements implements eventstore.Inline.
func (q *Queue) Statements(events []eventstore.Event) ([]eventstore.Statement, error) {
	var rows queueChanges
	if q.Claims != nil {
		q.Claims.Begin()
	}
	for i := range events {
		e := &events[i]
		switch c := e.Value.(type) {
		case domain.EventTriggered:
			dispatched, _ := domain.DispatchOf(domain.EventID(streamID(e.Stream)), c)
			for _, d := range dispatched.Deliveries {
				if d.BatchWait > 0 {
					rows.wait(dispatched.EventID, d, dispatched.Size)
					continue
				}
				var node int64
				if q.Claims != nil { // its payload is at hand
					node = q.Claims.Claim(dispatched.EventID, d, dispatched.Size)
				}
				rows.inserted.add(dispatched.EventID, d, dispatched.Size, node)
			}
		case domain.EventDispatched:
			for _, d := range c.Deliveries {
				if d.BatchWait > 0 {
					rows.wait(c.EventID, d, c.Size)
				} else {
					rows.later.add(c.EventID, d, c.Size, 0)
				}
			}
		case domain.DeliverySucceeded:
			rows.end(e.Stream)
		case domain.DeliveryBatched:
			rows.batched = append(rows.batched, batchedRow{streamID(e.Stream), c, e.Version})
		case domain.DeliveryJoinedBatch:
			rows.leave(e.Stream)
		case domain.DeliveryCancelled:
			rows.end(e.Stream)
			rows.leave(e.Stream)
		case domain.DeliveryAttemptFailed:
			if c.GaveUp != "" {
				rows.end(e.Stream)
			} else {
				rows.failed = append(rows.failed, failedRow{streamID(e.Stream), c.Attempt + 1, e.Version, c.NextAttemptAt})
			}
		case domain.DeliveryInterrupted:
			rows.interrupted = append(rows.interrupted, interruptedRow{streamID(e.Stream), c.Attempt + 1, e.Version})
		case domain.DeliveryRetryRequested:
			rows.retried = append(rows.retried, retriedRow{streamID(e.Stream), c, e.Version})
			rows.leave(e.Stream) // it goes at once, so by itself
		case domain.DeliveryOutcomeLate:
			rows.late = append(rows.late, lateRow{streamID(e.Stream), e.Version})
		}
	}
	return rows.statements(), nil
}

// streamID is the uuid at the end of a stream's name, which is ours and so has one.
func streamID(stream string) uuid.UUID {
	_, id, err := domain.ParseStream(stream)
	if err != nil {
		panic("projections: " + err.Error())
	}
	return id
}
