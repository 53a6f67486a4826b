package projections

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/medilab/webhooks/eventstore"
)

// The call log and the list of events hold only the positions of what they list. A
// row holds those of one list in one block of 256 positions, a byte each, in order;
// a page appends to it. So a busy list costs a row a page and a byte an entry, and
// what a row holds in the end does not depend on how the log was cut into pages.

// newestPositions is a query of the newest positions of one list between the positions $1 and
// $2, as many as are wanted at most, newest first; all three are bigint. It unpacks
// block after block until there are enough. As each block holds a position at least, and
// the first and the last may have them beyond the range only, it reads few, whatever the
// planner knows of the table. The order is that of the blocks: what is LATERAL is joined to each
// row in turn.
func newestPositions(table, list, wanted string) string {
	return strings.NewReplacer("{table}", table, "{list}", list, "{wanted}", wanted).Replace(`
	SELECT position FROM (
		SELECT block, places FROM medilab.{table} AS t
		WHERE {list} AND block BETWEEN ($1::bigint + 1) >> 8 AND ($2::bigint - 1) >> 8
		ORDER BY block DESC LIMIT {wanted} + 2
	) AS blocks
	CROSS JOIN LATERAL generate_series(length(places) - 1, 0, -1) AS n
	CROSS JOIN LATERAL (SELECT block << 8 | get_byte(places, n) AS position) AS unpacked
	WHERE position > $1::bigint AND position < $2::bigint
	LIMIT {wanted}`)
}

// blockBits are the bits of a position within its block, which fit a byte.
const blockBits = 8

// listKey names a row.
type listKey struct {
	webhook int32 // its short number; 0 in lists of no webhook
	kind    int32
	block   int64
}

// positionLists are the positions that a page adds, by row.
type positionLists map[listKey][]byte

// add adds a position; they come in the order of the log.
func (l positionLists) add(webhook, kind int32, at eventstore.Position) {
	key := listKey{webhook, kind, int64(at >> blockBits)}
	l[key] = append(l[key], byte(at))
}

// rows returns the page's positions as columns, in the order of the key. Rows of the
// block in which the page began may exist already, from the page before, as may those of blocks
// before it: they stand first, and grown is how many they are. All others are new.
func (l positionLists) rows(began int64) (webhooks, kinds []int32, blocks []int64, places [][]byte, grown int) {
	keys := slices.AppendSeq(make([]listKey, 0, len(l)), maps.Keys(l))
	rank := func(k listKey) int {
		if k.block <= began {
			return 0
		}
		return 1
	}
	slices.SortFunc(keys, func(a, b listKey) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.webhook, b.webhook), cmp.Compare(a.kind, b.kind), cmp.Compare(a.block, b.block))
	})
	for _, key := range keys {
		webhooks, kinds = append(webhooks, key.webhook), append(kinds, key.kind)
		blocks, places = append(blocks, key.block), append(places, l[key])
		grown += 1 - rank(key)
	}
	return webhooks, kinds, blocks, places, grown
}

// listTable is a table of positions, by kind and block or by webhook, kind and block.
type listTable struct {
	grow, insert string
	ofWebhooks   bool
	bits         int // of a position within its block
}

func newListTable(tables Tables, name string, ofWebhooks bool, bits int) listTable {
	columns, arrays, key := "kind, block, places", "$1::integer[], $2::bigint[], $3::bytea[]", "kind, block"
	if ofWebhooks {
		columns, arrays, key = columns+", webhook", arrays+", $4::integer[]", "webhook, "+key
	}
	insert := tables.SQL(`INSERT INTO {` + name + `} AS t (` + columns + `) SELECT * FROM unnest(` + arrays + `)`)
	return listTable{ofWebhooks: ofWebhooks, bits: bits, insert: insert,
		grow: insert + ` ON CONFLICT (` + key + `) DO UPDATE SET places = t.places || EXCLUDED.places`}
}

// statements add the lists of a page that begins at first.
func (t listTable) statements(l positionLists, first eventstore.Position) (all []eventstore.Statement) {
	webhooks, kinds, blocks, places, grown := l.rows(int64(first >> t.bits))
	add := func(sql string, from, to int) {
		if from == to {
			return
		}
		args := []any{kinds[from:to], blocks[from:to], places[from:to]}
		if t.ofWebhooks {
			args = append(args, webhooks[from:to])
		}
		all = append(all, eventstore.Statement{SQL: sql, Args: args})
	}
	add(t.grow, 0, grown)
	add(t.insert, grown, len(blocks))
	return all
}
