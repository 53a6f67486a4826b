package eventstore

import (
	"context"
	"fmt"
	"sync/atomic"
)

// DataKey is a key that events are encrypted with. It is stored by the append of the
// first of them: no event is in the log without its key.
type DataKey struct {
	Owner   [16]byte
	Number  int64
	Until   int64  // see the table medilab.data_keys
	Wrapped []byte // encrypted

	stored atomic.Int64 // 1 + the generation in which the database has it; 0: it has not
	// The appender's own:
	tried bool // it has tried to store it, and it may be there
	taken bool // it is among the keys of the batch
}

// StoredIn returns the log's generation in which an append has stored the key; 0: none has.
func (k *DataKey) StoredIn() int64 { return max(0, k.stored.Load()-1) }

// Envelope opens what was encrypted. Without one, events stay as the log has them.
type Envelope interface {
	// Open replaces the values of decoded events by their opened ones. It sets Err where
	// that fails; an error is the database's.
	Open(ctx context.Context, events []Event) error
}

// storeKeysSQL comes before appendSQL: what destroys keys changes the configuration, and if it was
// first, appendSQL undoes both. So the head's lock is held for less, and the buffer of the append's
// arguments, which are larger, grows last. To look for conflicts takes as long as to insert, and
// new keys have none.
const (
	storeKeysSQL = `INSERT INTO medilab.data_keys (owner, number, until, wrapped)
	SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bytea[])`
	storeKeysAgainSQL = storeKeysSQL + ` ON CONFLICT DO NOTHING`
)

// unstoredKeys returns the keys that the batch is the first to use in the generation, each
// once. In another one, the database may have lost them.
func unstoredKeys(batch []*pending, generation int64) (keys []*DataKey) {
	for _, p := range batch {
		for _, k := range p.unit.Keys {
			if !k.taken && k.stored.Load() != 1+generation {
				k.taken = true
				keys = append(keys, k)
			}
		}
	}
	for _, k := range keys {
		k.taken = false
	}
	return keys
}

func storeKeys(keys []*DataKey) (statements []Statement) {
	if len(keys) == 0 {
		return nil
	}
	owners, numbers := make([][16]byte, len(keys)), make([]int64, len(keys))
	untils, wrapped := make([]int64, len(keys)), make([][]byte, len(keys))
	sql := storeKeysSQL
	for i, k := range keys {
		if k.tried {
			sql = storeKeysAgainSQL
		}
		k.tried = true
		owners[i], numbers[i], untils[i], wrapped[i] = k.Owner, k.Number, k.Until, k.Wrapped
	}
	return []Statement{{SQL: sql, Args: []any{owners, numbers, untils, wrapped}}}
}

// open decodes and opens events.
func (l *Log) open(ctx context.Context, events []Event) error {
	l.decode(events)
	return l.Open(ctx, events)
}

// Open opens decoded events.
func (l *Log) Open(ctx context.Context, events []Event) error {
	if l.config.Envelope == nil || len(events) == 0 {
		return nil
	}
	if err := l.config.Envelope.Open(ctx, events); err != nil {
		return fmt.Errorf("open events: %w", err)
	}
	for i := range events {
		if l.lenient && events[i].Err != nil {
			l.config.Codec.decode(&events[i])
		}
	}
	return nil
}
