package projections

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// The events that went to one webhook are looked for in the blocks of the log that have some:
// a row a block, so that a webhook of many events costs little and one of few is found.

// reachedBits are those of a position within its block.
const reachedBits = 10

type reachedBlock struct {
	webhook domain.WebhookID
	block   int64
}

// reached returns the statement that notes in which blocks events went to which webhooks.
func (p *undelivered) reached(ctx context.Context, db Querier, events []eventstore.Event) ([]eventstore.Statement, error) {
	blocks, webhooks := map[reachedBlock]bool{}, map[uuid.UUID]bool{}
	add := func(to domain.WebhookID, at eventstore.Position) {
		blocks[reachedBlock{to, int64(at) >> reachedBits}] = true
		webhooks[uuid.UUID(to)] = true
	}
	later := map[domain.EventID][]domain.Dispatch{} // decided after they were appended, in old logs
	var streams []string
	for i := range events {
		switch c := events[i].Value.(type) {
		case domain.EventTriggered:
			for _, r := range c.Recipients {
				add(r.WebhookID, events[i].Position)
			}
		case domain.EventDispatched:
			later[c.EventID] = c.Deliveries
			streams = append(streams, events[i].Stream)
		}
	}
	heads, err := headsOf(ctx, db, headsByStream, streams)
	if err != nil {
		return nil, err
	}
	for _, h := range heads {
		for _, d := range later[h.id] {
			add(d.WebhookID, h.position)
		}
	}
	if len(blocks) == 0 {
		return nil, nil
	}
	if err := p.numbers.load(ctx, db, webhooks); err != nil {
		return nil, fmt.Errorf("read webhooks' numbers: %w", err)
	}
	lists := positionLists{}
	for r := range blocks {
		lists[listKey{webhook: p.numbers[uuid.UUID(r.webhook)], block: r.block}] = nil
	}
	numbers, _, of, _, old := lists.rows(int64(events[0].Position) >> reachedBits)
	return []eventstore.Statement{
		{SQL: p.reach + ` ON CONFLICT DO NOTHING`, Args: []any{numbers[:old], of[:old]}},
		{SQL: p.reach, Args: []any{numbers[old:], of[old:]}}, // to look for these would double what they cost
	}, nil
}

// reachedSQL lists the newest events that may have gone to a webhook: those that name it, and
// those of old logs that name nobody. The blocks are gone through in their order, as far as
// is needed.
var reachedSQL = `
SELECT e.position FROM (
	SELECT block FROM medilab.reached WHERE webhook = (` + strings.Replace(webhookNumber, "$1", "$3", 1) + `)
		AND block BETWEEN ($1::bigint + 1) >> 10 AND ($2::bigint - 1) >> 10 ORDER BY webhook DESC, block DESC
) AS b CROSS JOIN LATERAL (
	SELECT position FROM medilab.events
	WHERE position BETWEEN greatest(b.block << 10, $1 + 1) AND least((b.block << 10) + 1023, $2 - 1) AND type = 'event.triggered'
		AND (position(convert_to($3::uuid::text, 'UTF8') IN data) > 0 OR position('"recipients":['::bytea IN data) = 0)
	ORDER BY position DESC
) AS e LIMIT $4`
