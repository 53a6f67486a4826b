package domain

import (
	"cmp"
	"strconv"
	"strings"
	"time"
)

// Backoff is what an answer asks of later calls.
type Backoff struct {
	RetryAfter time.Duration // before the next attempt of this delivery
	// At most Calls of the webhook may be in flight for the time. Zero: as many as before.
	Calls int
	For   time.Duration
}

// MaxBackoff is the longest time for which an answer may slow all calls of a webhook.
const MaxBackoff = time.Hour

// RateLimitHeader is what an answer says of the calls that its receiver will take.
type RateLimitHeader struct {
	RateLimit        string // `"default";r=50;t=30`, or `limit=100, remaining=50, reset=30`
	Remaining, Reset string // the two, where RateLimit is not sent
}

// BackoffOf returns what an answer asks: no call for the time of a Retry-After, or no more
// in flight than the receiver says that it will take until its window ends
// (draft-ietf-httpapi-ratelimit-headers, and the fields of its first versions). What
// cannot be read asks for nothing.
func BackoffOf(retryAfter time.Duration, limit RateLimitHeader, now time.Time) Backoff {
	b := Backoff{RetryAfter: retryAfter, For: min(retryAfter, MaxBackoff)}
	if b.For > 0 {
		return b
	}
	members := limit.RateLimit
	if members == "" && limit.Remaining != "" {
		members = "r=" + limit.Remaining + ";t=" + limit.Reset
	}
	var calls, window string
	for member := range strings.FieldsFuncSeq(members, func(r rune) bool { return r == ',' || r == ';' }) {
		switch name, value, _ := strings.Cut(strings.TrimSpace(member), "="); strings.ToLower(name) {
		case "r", "remaining":
			calls = value
		case "t", "reset":
			window = value
		}
		if calls != "" && window != "" { // of one policy of several
			b = b.tightest(calls, window, now)
			calls, window = "", ""
		}
	}
	return b
}

// tightest returns the one of b and what the texts ask that allows fewer calls.
func (b Backoff) tightest(calls, window string, now time.Time) Backoff {
	n, err := strconv.Atoi(calls)
	seconds, wrong := strconv.ParseInt(window, 10, 64)
	if cmp.Or(err, wrong) != nil || n < 0 {
		return b
	}
	const epoch = 1_000_000_000 // some send the time at which the window ends
	if seconds >= epoch {
		seconds -= now.Unix()
	}
	if seconds > 0 && (b.For == 0 || n < b.Calls) {
		b.Calls, b.For = n, time.Duration(min(seconds, int64(MaxBackoff/time.Second)))*time.Second
	}
	return b
}
