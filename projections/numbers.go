package projections

import (
	"context"
	"fmt"
	"sync"

	"github.com/medilab/webhooks/domain"
)

// numbers knows the short number of every webhook: a quarter of the size of its
// id in each row of the call log. A number never changes and stands in the first
// event of the webhook's stream, so what is once read stays true.
type numbers struct {
	mu    sync.Mutex
	known map[domain.WebhookID]int32
}

// of gives the numbers of the webhooks. One whose beginning is not in the log
// or does not decode gets 0, which no webhook has.
func (n *numbers) of(ctx context.Context, db Querier, ids map[domain.WebhookID]struct{}) (map[domain.WebhookID]int32, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == nil {
		n.known = map[domain.WebhookID]int32{}
	}
	found := make(map[domain.WebhookID]int32, len(ids))
	var missing []string
	for id := range ids {
		number, ok := n.known[id]
		if !ok {
			missing = append(missing, id.Stream())
			continue
		}
		found[id] = number
	}
	if len(missing) == 0 {
		return found, nil
	}
	rows, err := db.Query(ctx, `SELECT stream, type, data FROM medilab.events WHERE stream = ANY($1) AND version = 1`, missing)
	if err != nil {
		return nil, fmt.Errorf("read webhooks' numbers: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var stream, changeType string
		var data []byte
		if err := rows.Scan(&stream, &changeType, &data); err != nil {
			return nil, fmt.Errorf("read webhooks' numbers: %w", err)
		}
		_, id, err := domain.ParseStream(stream)
		if err != nil {
			continue
		}
		if change, err := domain.Decode(changeType, data); err == nil {
			if registered, ok := change.(domain.WebhookRegistered); ok {
				found[domain.WebhookID(id)] = int32(registered.Number)
			}
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read webhooks' numbers: %w", err)
	}
	for id := range ids {
		n.known[id] = found[id]
	}
	return found, nil
}
