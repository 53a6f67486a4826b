package domain

import (
	"testing"
	"time"
)

func TestBackoffOf(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for name, c := range map[string]struct {
		retryAfter time.Duration
		header     RateLimitHeader
		calls      int
		wait       time.Duration
	}{
		"nothing":                    {},
		"Retry-After":                {retryAfter: 7 * time.Second, wait: 7 * time.Second},
		"Retry-After of a day":       {retryAfter: 24 * time.Hour, wait: time.Hour},
		"Retry-After comes first":    {retryAfter: time.Second, header: RateLimitHeader{RateLimit: `"a";r=5;t=30`}, wait: time.Second},
		"structured":                 {header: RateLimitHeader{RateLimit: `"default";r=50;t=30`}, calls: 50, wait: 30 * time.Second},
		"none left":                  {header: RateLimitHeader{RateLimit: `"default";r=0;t=30`}, wait: 30 * time.Second},
		"the tightest of several":    {header: RateLimitHeader{RateLimit: `"hour";r=900;t=1800, "minute";r=2;t=40;pk=:cHNZ:`}, calls: 2, wait: 40 * time.Second},
		"a quota without a time":     {header: RateLimitHeader{RateLimit: `"default";r=50`}},
		"the draft before":           {header: RateLimitHeader{RateLimit: "limit=100, remaining=3, reset=9"}, calls: 3, wait: 9 * time.Second},
		"fields of their own":        {header: RateLimitHeader{Remaining: "0", Reset: "12"}, wait: 12 * time.Second},
		"the end of the window":      {header: RateLimitHeader{Remaining: "1", Reset: "1800000060"}, calls: 1, wait: time.Minute},
		"a window that has ended":    {header: RateLimitHeader{Remaining: "0", Reset: "1700000000"}},
		"a window of ten days":       {header: RateLimitHeader{Remaining: "0", Reset: "864000"}, wait: time.Hour},
		"what cannot be read":        {header: RateLimitHeader{RateLimit: `;;=,r=x;t=1,r=-1;t=5,r=1;t=99999999999999999999`}},
		"a remainder without a time": {header: RateLimitHeader{Remaining: "5"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := BackoffOf(c.retryAfter, c.header, now)
			if want := (Backoff{RetryAfter: c.retryAfter, Calls: c.calls, For: c.wait}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}
