package projections

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
)

// Disclosure is an event that was sent to a webhook: who got what of whom.
type Disclosure struct {
	WebhookID    domain.WebhookID      `json:"webhook_id"`
	WebhookName  string                `json:"webhook_name"` // when it was sent
	Recipient    *domain.DataRecipient `json:"recipient"`    // as it was then; null: nobody said
	URL          string                `json:"url"`
	EventID      domain.EventID        `json:"event_id"`
	EventType    string                `json:"event_type"`
	Kind         SentKind              `json:"kind"`
	Fields       []string              `json:"fields" schema:"null"` // null: all of event_data
	FirstCallAt  time.Time             `json:"first_call_at"`
	LastCallAt   time.Time             `json:"last_call_at"`
	Acknowledged Acknowledgement       `json:"acknowledged"`

	last Position  // of the last call
	cut  []cutCall // of which nobody knows what became
}

// cutCall is an attempt that was cut off.
type cutCall struct {
	stream  string
	attempt int
}

// Disclosures is a page of them.
type Disclosures struct {
	Page[Disclosure]
	// CoveredFrom is since when the list covers what was sent: what was recorded before is
	// archived, and not in it. Null: it covers all.
	CoveredFrom *time.Time `json:"covered_from"`
}

// Acknowledgement says whether a receiver acknowledged what it was sent.
type Acknowledgement string

// The acknowledgements. After a call that was cut off, and no success, it is unknown.
const (
	Acknowledged        Acknowledgement = "true"
	NotAcknowledged     Acknowledgement = "false"
	AcknowledgedUnknown Acknowledgement = "unknown"
)

// MarshalJSON encodes true, false or "unknown".
func (a Acknowledgement) MarshalJSON() ([]byte, error) {
	if a == AcknowledgedUnknown {
		return []byte(`"unknown"`), nil
	}
	return []byte(a), nil
}

// Disclosures lists to whom the events that tell of the subject were sent, the newest event
// first, also events of which no key is left. A page ends with an event, so it may be longer
// than the limit by what one event was sent to.
func (p *Projections) Disclosures(ctx context.Context, owner envelope.Owner, limit int, cursor Cursor) (page Disclosures, err error) {
	page.Items = []Disclosure{}
	if err := p.awaitData(ctx); err != nil {
		return page, err
	}
	if page.CoveredFrom, err = p.CoveredFrom(ctx); err != nil {
		return page, err
	}
	rows, _ := p.pool.Query(ctx, newestOfSubject, owner[:], cursor.Below(), 0, limit+1)
	positions, err := pgx.CollectRows(rows, pgx.RowTo[Position])
	if err != nil {
		return page, fmt.Errorf("list disclosures: %w", err)
	}
	sent := disclosing{Projections: p}
	for done := 0; done < len(positions); {
		if len(page.Items) >= limit || done == limit {
			page.NextCursor = Cursor(positions[done-1])
			break
		}
		items, err := sent.of(ctx, positions[done:min(limit, len(positions))], limit-len(page.Items))
		if err != nil {
			return page, fmt.Errorf("list disclosures: %w", err)
		}
		for i := 0; i < len(items) && len(page.Items) < limit; i++ {
			slices.Reverse(items[i])
			page.Items = append(page.Items, items[i]...)
			done++
		}
	}
	return page, nil
}

// DisclosuresTo lists what of whom was sent to the webhook by calls that were recorded at or
// after from and before to, the newest first. A zero time is no bound. A page goes by the
// calls that end each item, so it may be longer than the limit where batches were sent.
func (p *Projections) DisclosuresTo(ctx context.Context, webhook domain.WebhookID, from, to time.Time, limit int, cursor Cursor) (page Disclosures, err error) {
	page.Items = []Disclosure{}
	if page.CoveredFrom, err = p.CoveredFrom(ctx); err != nil {
		return page, err
	}
	calls, err := p.Calls(ctx, CallFilter{Webhook: webhook, From: from, To: to, Limit: limit, Cursor: cursor})
	if err != nil {
		return page, err
	}
	page.NextCursor = calls.NextCursor
	positions, err := p.sentBy(ctx, calls.Items)
	if err != nil {
		return page, fmt.Errorf("list disclosures: %w", err)
	}
	sent, ended := disclosing{Projections: p, webhook: webhook, to: to}, map[Position][]Disclosure{}
	for len(positions) > 0 {
		items, err := sent.of(ctx, positions[:min(limit, len(positions))], limit)
		if err != nil {
			return page, fmt.Errorf("list disclosures: %w", err)
		}
		positions = positions[len(items):]
		for _, item := range slices.Concat(items...) {
			ended[item.last] = append(ended[item.last], item)
		}
	}
	for _, call := range calls.Items {
		page.Items = append(page.Items, ended[call.Position]...)
	}
	return page, nil
}

// sentBy returns the positions of the events that the calls sent, and of tests, each once.
func (p *Projections) sentBy(ctx context.Context, calls []Call) ([]Position, error) {
	var streams, batches []string
	for _, call := range calls {
		switch {
		case call.Test:
			streams = append(streams, call.DeliveryID.Stream())
		case call.EventType == string(domain.BatchEventType):
			batches = append(batches, call.DeliveryID.Stream())
		default:
			streams = append(streams, call.EventID.Stream())
		}
	}
	begun, err := p.log.LoadFirst(ctx, batches)
	if err != nil {
		return nil, err
	}
	for _, batched := range each[domain.DeliveryBatched](begun) {
		for _, m := range batched.Members {
			streams = append(streams, m.EventID.Stream())
		}
	}
	return p.firstPositions(ctx, streams)
}

// firstPositions returns where the streams begin, in the order of the log.
func (p *Projections) firstPositions(ctx context.Context, streams []string) ([]Position, error) {
	slices.Sort(streams)
	rows, _ := p.pool.Query(ctx, firstPositionsSQL, slices.Compact(streams))
	return pgx.CollectRows(rows, pgx.RowTo[Position])
}

const firstPositionsSQL = `SELECT e.position FROM unnest($1::text[]) AS s (stream)
	CROSS JOIN LATERAL (SELECT position FROM medilab.events WHERE stream = s.stream AND version = 1 LIMIT 1) AS e ORDER BY e.position`

func (d *Disclosure) add(call domain.Call, e *eventstore.Event) {
	d.LastCallAt, d.last = e.RecordedAt, e.Position
	attempt := cutCall{e.Stream, call.Attempt}
	if call.Outcome == domain.OutcomeInterrupted {
		d.cut = append(d.cut, attempt)
	} else if _, late := e.Value.(domain.DeliveryOutcomeLate); late {
		d.cut = slices.DeleteFunc(d.cut, func(c cutCall) bool { return c == attempt })
	}
	switch {
	case call.Outcome == domain.OutcomeSuccess || d.Acknowledged == Acknowledged:
		d.Acknowledged = Acknowledged
	case len(d.cut) > 0:
		d.Acknowledged = AcknowledgedUnknown
	default:
		d.Acknowledged = NotAcknowledged
	}
}
