package outbox

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// SyncEventTypes makes the table medilab.event_types equal to the catalogue; by it medilab.emit
// refuses unknown types. Rows that are equal stay untouched, and emitters never wait.
func SyncEventTypes(ctx context.Context, pool *pgxpool.Pool, catalog domain.Catalog) error {
	var types, ru, en []string
	for _, info := range catalog.Clinic() {
		types, ru, en = append(types, string(info.Type)), append(ru, info.RU), append(en, info.EN)
	}
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// One node at a time; readers are not blocked.
		_, err := tx.Exec(ctx, `LOCK TABLE medilab.event_types IN SHARE ROW EXCLUSIVE MODE`)
		_, deleting := tx.Exec(ctx, `DELETE FROM medilab.event_types WHERE type <> ALL ($1::text[])`, types)
		_, merging := tx.Exec(ctx, `
			INSERT INTO medilab.event_types AS known (type, description_ru, description_en)
			SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
			ON CONFLICT (type) DO UPDATE SET description_ru = excluded.description_ru, description_en = excluded.description_en
			WHERE (known.description_ru, known.description_en) <> (excluded.description_ru, excluded.description_en)`, types, ru, en)
		return errors.Join(err, deleting, merging)
	})
	return eventstore.Doing("store the event types", err)
}
