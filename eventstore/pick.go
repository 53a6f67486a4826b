package eventstore

import "context"

// Pick reads the events at the positions, in the order given. It stops early,
// but not before the first, once it holds about maxPageBytes: the caller asks
// again for the rest. A position that the log does not hold is left out.
func (l *Log) Pick(ctx context.Context, positions []Position) ([]Event, error) {
	if len(positions) == 0 {
		return nil, nil
	}
	// LATERAL with LIMIT keeps to the primary key even by a plan that was made
	// when the log was empty.
	return l.query(ctx, `
		SELECT position, stream, version, type, data, metadata, recorded_at FROM (
			SELECT e.position, e.stream, e.version, e.type, e.data, e.metadata::text, e.recorded_at, p.n,
				sum(octet_length(e.data)) OVER (ORDER BY p.n) - octet_length(e.data) AS before
			FROM unnest($1::bigint[]) WITH ORDINALITY AS p (position, n)
			CROSS JOIN LATERAL (SELECT * FROM medilab.events WHERE position = p.position LIMIT 1) AS e
		) AS sized WHERE before < $2 ORDER BY n`, positions, maxPageBytes)
}
