package vault

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
)

// RewrapKeys encrypts with the primary key of the keyset what data keys are wrapped with
// older ones, while others use them. Cut off, it goes on where it was. What a server wraps
// within a moment of a rotation may stay as it is: the keyset keeps its keys. It returns how
// many it has wrapped again; one that no key of the keyset decrypts is an error.
func (v *Vault) RewrapKeys(ctx context.Context, pool *pgxpool.Pool) (done int, err error) {
	var after envelope.KeyID
	after.Number = -1
	for {
		n, last, err := v.rewrapPage(ctx, pool, after)
		done += n
		if err != nil || last == after {
			return done, err
		}
		after = last
	}
}

func (v *Vault) rewrapPage(ctx context.Context, pool *pgxpool.Pool, after envelope.KeyID) (done int, last envelope.KeyID, err error) {
	const page = 1000
	rows, _ := pool.Query(ctx, `SELECT owner, number, until, wrapped FROM medilab.data_keys
		WHERE (owner, number) > ($1, $2) ORDER BY owner, number LIMIT $3`, uuid.UUID(after.Owner), after.Number, page)
	var owners []uuid.UUID
	var numbers []int64
	var changed [][]byte
	var owner uuid.UUID
	var wrapped []byte
	last = after
	_, err = pgx.ForEachRow(rows, []any{&owner, &last.Number, &last.Until, &wrapped}, func() error {
		last.Owner = envelope.Owner(owner)
		if v.isCurrent(wrapped) {
			return nil
		}
		secret, err := v.unwrap(last, wrapped)
		if err != nil {
			return err
		}
		again, err := v.wrap(last, secret)
		owners, numbers, changed = append(owners, owner), append(numbers, last.Number), append(changed, again)
		return err
	})
	if err != nil || len(owners) == 0 {
		return 0, last, eventstore.Doing("read data keys", err)
	}
	// The array alone makes the planner go by the key.
	_, err = pool.Exec(ctx, `UPDATE medilab.data_keys AS k SET wrapped = r.wrapped
		FROM unnest($1::uuid[], $2::bigint[], $3::bytea[]) AS r (owner, number, wrapped)
		WHERE k.owner = r.owner AND k.number = r.number AND k.owner = ANY($1)`, owners, numbers, changed)
	if err != nil {
		return 0, last, fmt.Errorf("wrap data keys again: %w", err)
	}
	return len(owners), last, nil
}
