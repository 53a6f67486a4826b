package projections

import (
	"encoding/base64"
	"math"
	"strconv"

	"github.com/medilab/webhooks/domain"
)

// A cursor is opaque to callers: the number that the last item of a page had in
// the order of its list. What follows has a lower one.

const cursorPrefix = "c1:"

func cursorAt(last int64) string {
	return base64.RawURLEncoding.EncodeToString([]byte(cursorPrefix + strconv.FormatInt(last, 10)))
}

// parseCursor gives the number that all items must be below.
func parseCursor(cursor string) (int64, error) {
	if cursor == "" {
		return math.MaxInt64, nil
	}
	decoded, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil && len(decoded) > len(cursorPrefix) && string(decoded[:len(cursorPrefix)]) == cursorPrefix {
		if n, err := strconv.ParseInt(string(decoded[len(cursorPrefix):]), 10, 64); err == nil && n > 0 {
			return n, nil
		}
	}
	return 0, domain.Invalid("cursor", "must be the next_cursor of an earlier answer")
}
