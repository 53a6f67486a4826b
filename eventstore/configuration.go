package eventstore

import "context"

// ConfigurationUpTo gives the events of the webhooks' and tokens' streams up to
// the position, in order.
func (l *Log) ConfigurationUpTo(ctx context.Context, last Position) ([]Event, error) {
	return l.query(ctx, `SELECT `+eventColumns+` FROM medilab.events
		WHERE position <= $1 AND (stream LIKE 'webhook-%' OR stream LIKE 'token-%') ORDER BY position`, last)
}
