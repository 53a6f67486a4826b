package domain

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// MaxAttemptDelay caps the wait before any attempt, whatever the schedule, the jitter or
// a receiver's Retry-After says (contract section 3).
const MaxAttemptDelay = 24 * time.Hour

// jitterShare is the most that jitter adds to a wait, as one part of so many: 4 %, which
// leaves the clock and the queue a margin to the 5 % that the contract promises.
const jitterShare = 25

// NextAttemptDelay is the wait before attempt, counted from the end of the attempt
// before it (the guide's section "Экспоненциальная Задержка"):
//
//	attempt 1: none
//	attempt n: retryDelay * 2^(n-2), and up to 4 % more, at most 24 h
//
// It is never less than the schedule. The same seed and attempt give the same wait, so a
// delivery's schedule can be told again from its id; different seeds spread over the 4 %.
func NextAttemptDelay(retryDelay time.Duration, attempt int, jitterSeed uint64) time.Duration {
	if attempt <= 1 || retryDelay <= 0 {
		return 0
	}
	delay := retryDelay
	for n := 2; n < attempt && delay < MaxAttemptDelay; n++ {
		delay *= 2
	}
	if delay >= MaxAttemptDelay {
		return MaxAttemptDelay
	}
	share := float64(spreadBits(jitterSeed+uint64(attempt))>>11) / (1 << 53) // in [0, 1)
	return min(delay+time.Duration(share*float64(delay/jitterShare)), MaxAttemptDelay)
}

// spreadBits spreads a seed over all 64 bits (the finalizer of SplitMix64, Steele et al. 2014).
func spreadBits(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// LengthenDelay applies a receiver's Retry-After to the schedule's wait: it can lengthen
// it, never shorten it, and never beyond 24 h.
func LengthenDelay(delay, retryAfter time.Duration) time.Duration {
	return min(max(delay, retryAfter), MaxAttemptDelay)
}

// ParseRetryAfter reads a Retry-After header (RFC 9110 section 10.2.3): a number of
// seconds, or an HTTP date, which is taken relative to now. The wait is between 0 and
// 24 h: a date in the past is 0. False means that the header is neither.
func ParseRetryAfter(header string, now time.Time) (time.Duration, bool) {
	if header = strings.TrimSpace(header); header == "" {
		return 0, false
	}
	seconds, err := strconv.ParseUint(header, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) { // more digits than a number can hold are a long wait too
		return time.Duration(min(seconds, uint64(MaxAttemptDelay/time.Second))) * time.Second, true
	}
	// The three formats that RFC 9110 section 5.6.7 has a recipient accept.
	for _, layout := range []string{"Mon, 02 Jan 2006 15:04:05 GMT", time.RFC850, time.ANSIC} {
		if at, err := time.Parse(layout, header); err == nil {
			// Compared as times first: the difference of distant times does not fit a Duration.
			if !at.After(now) {
				return 0, true
			}
			if at.After(now.Add(MaxAttemptDelay)) {
				return MaxAttemptDelay, true
			}
			return at.Sub(now), true
		}
	}
	return 0, false
}
