package projections

import (
	"context"
	"time"

	"github.com/medilab/webhooks/eventstore"
)

// Position is an entry's place in the log.
type Position = eventstore.Position

// AuditFilter says what of the log to replay. The zero value is all of it.
type AuditFilter struct {
	After    Position  // what follows it
	Stream   string    // "" is any
	Type     string    // exact, or a prefix that ends in ".*"; "" is any
	From, To time.Time // recorded at or after, before; zero is any
}

// Audit yields the log's entries in order, each as a line of JSON without its
// newline, up to what was its head at the beginning. The line is the caller's
// only until yield returns.
func (p *Projections) Audit(ctx context.Context, f AuditFilter, yield func(line []byte) error) error {
	filter := eventstore.Filter{Type: f.Type, From: f.From, To: f.To}
	if f.Stream != "" {
		filter.Streams = []string{f.Stream}
	}
	var line []byte
	return p.log.Each(ctx, f.After, filter, func(e eventstore.Event) error {
		line = e.AppendLine(line[:0])
		return yield(line)
	})
}
