package eventstore

import (
	"fmt"
	"strings"
	"time"
)

// Filter narrows a reading of the log. The zero value lets everything through.
type Filter struct {
	Streams []string  // any of these
	Mention string    // beside those, also what holds this text anywhere in its data
	Type    string    // exact, or a prefix that ends in ".*"
	From    time.Time // recorded at or after
	To      time.Time // recorded before
}

// query reads a page. Streams are few and go by their unique index, all else by
// position; so does a time, which is found in the log by its positions.
func (f Filter) query(after, head Position, limit int) (string, []any) {
	var where strings.Builder
	args := []any{after, head}
	and := func(condition string, arg any) {
		args = append(args, arg)
		fmt.Fprintf(&where, " AND "+condition, len(args))
	}
	if f.Mention != "" {
		args = append(args, f.Streams, []byte(f.Mention))
		where.WriteString(" AND (stream = ANY($3) OR position($4::bytea IN data) > 0)")
	} else if len(f.Streams) > 0 {
		and("stream = ANY($%d)", f.Streams)
	}
	if prefix, group := strings.CutSuffix(f.Type, "*"); group {
		and("starts_with(type, $%d)", prefix)
	} else if f.Type != "" {
		and("type = $%d", f.Type)
	}
	if !f.From.IsZero() {
		and("position > medilab.position_before($%d)", f.From)
	}
	if !f.To.IsZero() {
		and("position <= medilab.position_before($%d)", f.To)
	}
	args = append(args, limit)
	return fmt.Sprintf(`SELECT %s FROM medilab.events WHERE position > $1 AND position <= $2%s ORDER BY position LIMIT $%d`,
		eventColumns, where.String(), len(args)), args
}
