package commands

import (
	"context"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
)

// ActorRetention is who destroys what was kept for as long as it is to be.
const ActorRetention = "system:retention"

// ExpirePayloads destroys the keys of periods that ended longer ago than content is to be
// kept: first on record, from when nobody opens what they encrypted, then in the database.
// Cut off, it goes on when it is called again, on any node.
func (c *Commands) ExpirePayloads(ctx context.Context, keep time.Duration) error {
	var last int64
	err := c.Pool.QueryRow(ctx, `SELECT coalesce(max(until), 0) FROM medilab.data_keys WHERE until > 0 AND until <= $1`, c.Now().Add(-keep).Unix()).Scan(&last)
	if err != nil || last == 0 {
		return Failed("look for keys of the past", err)
	}
	until := time.Unix(last, 0).UTC()
	stream := domain.SubjectStream(envelope.OfPeriods)
	_, err = c.Directory.Execute(ctx, func(ctx context.Context) (unit eventstore.Unit, err error) {
		former, err := c.Log.LoadFrom(ctx, stream, domain.PayloadsExpired{}.ChangeType())
		version := int64(0)
		for _, e := range former {
			if expired, ok := e.Value.(domain.PayloadsExpired); ok && !expired.Until.Before(until) {
				return unit, nil // it is on record
			}
			version = e.Version
		}
		return Caller{Actor: ActorRetention}.unit(stream, version, domain.PayloadsExpired{Until: until}), err
	})
	for more := int64(1); more > 0 && err == nil; {
		more, err = c.destroyExpired(ctx, last)
	}
	return Failed("destroy keys of the past", err)
}

// destroyExpired destroys some of the keys of periods that ended by then.
func (c *Commands) destroyExpired(ctx context.Context, until int64) (int64, error) {
	const some = 10_000
	tag, err := c.Pool.Exec(ctx, `DELETE FROM medilab.data_keys WHERE ctid = ANY(ARRAY(
		SELECT ctid FROM medilab.data_keys WHERE until > 0 AND until <= $1 LIMIT $2))`, until, some)
	return tag.RowsAffected(), err
}
