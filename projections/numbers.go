package projections

import (
	"context"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
)

// numbers caches the short number of every webhook: a quarter of the size of its
// id in each row of the call log. A number never changes and stands in the first
// event of the webhook's stream.
type numbers map[uuid.UUID]int32

// load reads the numbers of the webhooks that are not known yet. One whose first
// event is missing or does not decode gets 0, which no webhook has.
func (n numbers) load(ctx context.Context, db Querier, webhooks map[uuid.UUID]bool) error {
	var missing []string
	for id := range webhooks {
		if _, known := n[id]; !known {
			missing = append(missing, domain.WebhookID(id).Stream())
		}
	}
	if len(missing) == 0 {
		return nil
	}
	first, err := firstOf[domain.WebhookRegistered](ctx, db, missing)
	if err != nil {
		return err
	}
	for id := range webhooks {
		if _, known := n[id]; !known {
			n[id] = int32(first[domain.WebhookID(id).Stream()].Number)
		}
	}
	return nil
}
