package commands

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// ErrUnreadable says that what the log holds does not decode: reading it again
// will not help.
var ErrUnreadable = errors.New("the stored event cannot be read")

// BatchEvents reads the events of a batch, in the order of its body, and those that are left
// out of it, as they are erased since. The error is ErrUnreadable or the log's.
func BatchEvents(ctx context.Context, log *eventstore.Log, batch domain.DeliveryID) (events []domain.PayloadEvent, left []domain.LeftOut, err error) {
	batched, _, err := first[domain.DeliveryBatched](ctx, log, batch.Stream())
	if err != nil {
		return nil, nil, err
	}
	streams := make([]string, len(batched[0].Members))
	for i, m := range batched[0].Members {
		streams[i] = m.EventID.Stream()
	}
	triggered, recorded, err := first[domain.EventTriggered](ctx, log, streams...)
	if err != nil {
		return nil, nil, err
	}
	events = make([]domain.PayloadEvent, 0, len(triggered))
	for i, t := range triggered {
		if t.Erased {
			left = append(left, domain.LeftOut{EventID: batched[0].Members[i].EventID, Reason: CancelGone(t.Content)})
			continue
		}
		member := batched[0].Members[i]
		events = append(events, t.Sent(member.EventID, recorded[i].RecordedAt.UTC(), member.Sequence))
	}
	return events, left, nil
}

// CancelGone returns why a delivery is cancelled whose content is gone.
func CancelGone(c domain.Content) domain.CancelReason {
	if c.Expired {
		return domain.CancelExpired
	}
	return domain.CancelSubjectErased
}

// first reads what each stream began with.
func first[C domain.Change](ctx context.Context, log *eventstore.Log, streams ...string) ([]C, []eventstore.Event, error) {
	events, err := log.LoadFirst(ctx, streams)
	if err != nil {
		return nil, nil, err
	}
	if len(events) != len(streams) {
		return nil, nil, fmt.Errorf("%w: %d of %d are not in the log", ErrUnreadable, len(streams)-len(events), len(streams))
	}
	changes := make([]C, len(events))
	for i := range events {
		change, ok := events[i].Value.(C)
		if !ok {
			err := cmp.Or(events[i].Err, fmt.Errorf("a stream does not begin with %s", events[i].Type))
			return nil, nil, fmt.Errorf("%w: position %d: %w", ErrUnreadable, events[i].Position, err)
		}
		changes[i] = change
	}
	return changes, events, nil
}
