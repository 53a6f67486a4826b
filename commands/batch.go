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

// BatchEvents reads the events of a batch, in the order of its body, and those that are left out of
// it: those that are erased since and, once it was tried, those that went on by themselves. The error
// is ErrUnreadable or the log's.
func BatchEvents(ctx context.Context, log *eventstore.Log, batch domain.DeliveryID, tried bool) (events []domain.PayloadEvent, left []domain.LeftOut, err error) {
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
	departed := map[domain.DeliveryID]bool{}
	if tried {
		if departed, err = departedFrom(ctx, log, batched[0].Members); err != nil {
			return nil, nil, err
		}
	}
	events = make([]domain.PayloadEvent, 0, len(triggered))
	for i, t := range triggered {
		if t.Erased {
			left = append(left, domain.LeftOut{EventID: batched[0].Members[i].EventID, Reason: CancelGone(t.Content)})
			continue
		}
		member := batched[0].Members[i]
		if departed[member.DeliveryID] {
			left = append(left, domain.LeftOut{EventID: member.EventID, Reason: domain.CancelReplayed})
			continue
		}
		events = append(events, t.Sent(member.EventID, recorded[i].RecordedAt.UTC(), member.Sequence))
	}
	return events, left, nil
}

// departedFrom returns the members of a batch that have gone on by themselves since they joined it.
func departedFrom(ctx context.Context, log *eventstore.Log, members []domain.BatchMember) (map[domain.DeliveryID]bool, error) {
	streams := make([]string, len(members))
	for i, m := range members {
		streams[i] = m.DeliveryID.Stream()
	}
	events, err := log.LoadAll(ctx, streams)
	if err != nil {
		return nil, err
	}
	joined := map[string]bool{}
	for i := range events {
		_, joined[events[i].Stream] = events[i].Value.(domain.DeliveryJoinedBatch)
	}
	departed := map[domain.DeliveryID]bool{}
	for i, m := range members {
		departed[m.DeliveryID] = !joined[streams[i]]
	}
	return departed, nil
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
