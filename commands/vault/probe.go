package vault

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// ErrForeign means that the keyset is not the one which encrypted what is stored.
var ErrForeign = errors.New("the keyset is another's")

// A probe is stored beside the secrets: a text that the keyset encrypted. It belongs to no
// webhook.
const probe = "keyset probe"

// probeLock is the advisory lock under which one process at a time looks for the probe.
const probeLock int64 = 0x6d6564696b6579 // "medikey" as bytes

// OpenFor opens the keyset in the file at path, or makes it for a database that stores
// nothing encrypted: one process makes it, however many start together, and the others
// need its file. A keyset that does not decrypt what is stored is ErrForeign. While there
// is no probe, decrypts is asked whether the keyset decrypts stored secrets.
func OpenFor(ctx context.Context, pool *pgxpool.Pool, path string, decrypts func(*Vault) bool) (v *Vault, err error) {
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, probeLock); err != nil {
			return err
		}
		var stored, used bool
		err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM medilab.keyset_probe),
			EXISTS (SELECT FROM medilab.events WHERE stream LIKE 'webhook-%')`).Scan(&stored, &used)
		if err != nil {
			return err
		}
		if v, err = Open(path, stored || used); err != nil {
			return err
		}
		if stored {
			return v.CheckProbe(ctx, tx)
		}
		if !decrypts(v) {
			return v.foreign()
		}
		return v.StoreProbe(ctx, tx)
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (v *Vault) foreign() error {
	return fmt.Errorf("%w: %s does not decrypt what the database holds; bring the file that does, or name it with MEDILAB_KEYS", ErrForeign, v.path)
}

// CheckProbe returns ErrForeign if there is a probe that the keyset does not decrypt.
func (v *Vault) CheckProbe(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) error {
	var encrypted domain.Sealed
	err := db.QueryRow(ctx, `SELECT encrypted FROM medilab.keyset_probe`).Scan(&encrypted)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the keyset's probe: %w", err)
	}
	if _, err := v.Decrypt(domain.WebhookID{}, probe, encrypted); err != nil {
		return v.foreign()
	}
	return nil
}

// StoreProbe encrypts the probe with the primary key.
func (v *Vault) StoreProbe(ctx context.Context, db interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}) error {
	encrypted, err := v.Encrypt(domain.WebhookID{}, probe, probe)
	if err != nil {
		return err
	}
	_, err = db.Exec(ctx, `INSERT INTO medilab.keyset_probe (encrypted) VALUES ($1)
		ON CONFLICT (one) DO UPDATE SET encrypted = excluded.encrypted`, encrypted)
	return eventstore.Doing("store the keyset's probe", err)
}
