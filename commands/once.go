package commands

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Once is a request that its caller may repeat by mistake: it carries an idempotency key. The
// first append under its context reserves the key, so that what is asked happens once, on
// whatever node and whenever a process dies. The answer is kept for repetitions.
type Once struct {
	stream   string // of the key
	hash     string // of the request
	metadata eventstore.Metadata
	used     atomic.Bool // by this request
}

type onceKey struct{}

// Once returns the request of the caller under the key, and a context to carry it out in.
func (c *Commands) Once(ctx context.Context, caller Caller, key, request string) (context.Context, *Once, error) {
	hash, err := c.Directory.HashedText(ctx, request)
	if err != nil {
		return ctx, nil, Failed("hash a request", err)
	}
	o := &Once{stream: domain.KeyStream(caller.Actor, key), hash: hash, metadata: caller.metadata()}
	return context.WithValue(ctx, onceKey{}, o), o, nil
}

// Key names the key and the caller whose it is.
func (o *Once) Key() string { return o.stream }

// id returns that of the key's stream.
func (o *Once) id() uuid.UUID { return uuid.MustParse(o.stream[strings.Index(o.stream, "-")+1:]) }

// reservation returns the write that reserves the key, for the events.
func (o *Once) reservation(events ...domain.EventID) eventstore.Write {
	used := domain.IdempotencyKeyUsed{EventIDs: append([]domain.EventID{}, events...), BodyHash: o.hash}
	return Write(o.stream, 0, o.metadata, used)
}

// errRepeated refuses to carry out again what was carried out, or is being.
var errRepeated = domain.Conflict("a request with this Idempotency-Key was carried out before, and its answer is lost; see what it did before you use another key")

// appendOnce appends the unit, and the key with it if it is the first of its request.
func (d *Directory) appendOnce(ctx context.Context, o *Once, unit eventstore.Unit) (eventstore.Appended, error) {
	unit.Writes = append(unit.Writes[:len(unit.Writes):len(unit.Writes)], o.reservation())
	appended, err := d.appendUnit(ctx, unit)
	if conflict, ok := errors.AsType[*eventstore.ConflictError](err); ok && conflict.Stream == o.stream {
		return appended, errRepeated
	}
	o.used.Store(err == nil)
	return appended, err
}

// Answer returns the answer that is kept for the request, nil if there is none.
func (c *Commands) Answer(ctx context.Context, o *Once) ([]byte, error) {
	var hash, sealed string
	err := c.Pool.QueryRow(ctx, `SELECT body_hash, answer FROM medilab.answers WHERE key = $1`, o.id()).Scan(&hash, &sealed)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, Failed("look up an answer", err)
	case hash != o.hash:
		return nil, errOtherBody
	}
	answer, err := c.Vault.Decrypt(domain.WebhookID{}, o.stream, domain.Sealed(sealed))
	if err != nil {
		return nil, errRepeated // its key is gone
	}
	return []byte(answer), nil
}

// answersKept is for how long.
const answersKept = "7 days"

// KeepAnswer keeps the answer for repetitions of the request, and drops old ones.
func (c *Commands) KeepAnswer(ctx context.Context, o *Once, answer []byte) error {
	sealed, err := c.Vault.Encrypt(domain.WebhookID{}, o.stream, string(answer))
	if err != nil {
		return domain.Internal("seal an answer", err)
	}
	_, err = c.Pool.Exec(ctx, `WITH old AS (DELETE FROM medilab.answers WHERE made_at < now() - $4::interval)
		INSERT INTO medilab.answers (key, body_hash, answer) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, o.id(), o.hash, string(sealed), answersKept)
	return Failed("keep an answer", err)
}

// repetitionPatience is how long a repetition waits for what the first request still does.
const repetitionPatience = 30 * time.Second

// Repeated returns the answer of a request that failed here as another with the same key is
// carried out, or was. Else, the error is why it failed.
func (c *Commands) Repeated(ctx context.Context, o *Once, failed error) (answer []byte, err error) {
	if o.used.Load() || domain.KindOf(failed) == domain.KindUnavailable {
		return nil, failed
	}
	err = c.awaitFirst(ctx, o, repetitionPatience, func(domain.IdempotencyKeyUsed) (done bool, err error) {
		answer, err = c.Answer(ctx, o)
		return answer != nil, err
	})
	if errors.Is(err, errUnused) {
		err = failed
	}
	return answer, err
}

// errUnused means that the log does not have the key.
var errUnused = errors.New("the key was not used")

// awaitFirst calls done until the request that used the key is, or has had its time.
func (c *Commands) awaitFirst(ctx context.Context, o *Once, patience time.Duration, done func(domain.IdempotencyKeyUsed) (bool, error)) error {
	const pause = 50 * time.Millisecond
	events, err := c.Log.Load(ctx, o.stream)
	if err != nil {
		return Failed("look up an idempotency key", err)
	}
	if len(events) == 0 {
		return errUnused
	}
	used, ok := events[0].Value.(domain.IdempotencyKeyUsed)
	if !ok || used.BodyHash != o.hash {
		return errOtherBody
	}
	for {
		if is, err := done(used); is || err != nil {
			return err
		}
		if c.Now().Sub(events[0].RecordedAt) > patience {
			return errRepeated
		}
		if err := eventstore.Sleep(ctx, pause); err != nil {
			return Failed("wait for the same request", err)
		}
	}
}
