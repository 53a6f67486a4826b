package projections

import (
	"cmp"
	"slices"
	"strings"

	"github.com/medilab/webhooks/eventstore"
)

// The call log and the list of events say only where the log has something: lists
// of places. A row holds those of one list that lie in one block of the log, a byte
// each, in the order of the log; a page appends to it. So a busy list costs a row a
// page and a byte an entry, and what a row holds in the end does not depend on how
// the log was cut into pages.

// newestPlaces is a query of the newest places of one list, of those between two
// positions and as many as are wanted at most, which are all bigint: the newest
// blocks that can be needed, of which each holds one place at least, then of these
// as many as hold enough, as the first may reach beyond the range. What is opened is
// little whatever the planner knows of the table.
func newestPlaces(table, list, after, before, wanted string) string {
	return strings.NewReplacer("{table}", table, "{list}", list, "{after}", after, "{before}", before, "{wanted}", wanted).Replace(`
	SELECT position FROM (
		SELECT block, places, sum(length(places)) OVER (ORDER BY block DESC) - length(places) AS newer FROM (
			SELECT block, places FROM medilab.{table} AS t
			WHERE {list} AND block BETWEEN ({after} + 1) >> 8 AND ({before} - 1) >> 8
			ORDER BY block DESC LIMIT {wanted} + 2
		) AS newest
	) AS enough
	CROSS JOIN LATERAL generate_series(0, length(places) - 1) AS n
	CROSS JOIN LATERAL (SELECT block << 8 | get_byte(places, n) AS position) AS place
	WHERE newer < {wanted} + 256 AND position > {after} AND position < {before}
	ORDER BY position DESC LIMIT {wanted}`)
}

// blockBits are the bits of a position within its block, which fit a byte.
const blockBits = 8

// placeKey names a row.
type placeKey struct {
	webhook int32 // its short number; 0 in lists of no webhook
	kind    int32
	block   int64
}

// placesOf are the places that a page adds, by row.
type placesOf map[placeKey][]byte

// add takes in a place; they come in the order of the log.
func (p placesOf) add(webhook, kind int32, at eventstore.Position) {
	key := placeKey{webhook, kind, int64(at >> blockBits)}
	p[key] = append(p[key], byte(at))
}

// rows are the page's places as columns, in the order of the key. Those of the block
// in which the page begins may be there already, from the page before: grown is how
// many they are, and they stand first. All others are new.
func (p placesOf) rows(first eventstore.Position) (webhooks, kinds []int32, blocks []int64, places [][]byte, grown int) {
	keys := make([]placeKey, 0, len(p))
	for key := range p {
		keys = append(keys, key)
	}
	began := int64(first >> blockBits)
	rank := func(k placeKey) int {
		if k.block == began {
			return 0
		}
		return 1
	}
	slices.SortFunc(keys, func(a, b placeKey) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.webhook, b.webhook), cmp.Compare(a.kind, b.kind), cmp.Compare(a.block, b.block))
	})
	for _, key := range keys {
		webhooks = append(webhooks, key.webhook)
		kinds = append(kinds, key.kind)
		blocks = append(blocks, key.block)
		places = append(places, p[key])
		grown += 1 - rank(key)
	}
	return webhooks, kinds, blocks, places, grown
}
