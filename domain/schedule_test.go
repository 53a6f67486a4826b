package domain

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestNextAttemptDelayFollowsTheGuide(t *testing.T) {
	for _, c := range []struct {
		retryDelay time.Duration
		attempt    int
		want       time.Duration
	}{
		{60 * time.Second, -1, 0},
		{60 * time.Second, 0, 0},
		{60 * time.Second, 1, 0},
		{60 * time.Second, 2, 60 * time.Second},
		{60 * time.Second, 3, 120 * time.Second},
		{60 * time.Second, 4, 240 * time.Second},
		{time.Second, 11, 512 * time.Second},
		{86400 * time.Second, 2, MaxAttemptDelay},
		{86400 * time.Second, 11, MaxAttemptDelay},
		{time.Second, math.MaxInt, MaxAttemptDelay},
		{0, 5, 0},
		{-time.Second, 5, 0},
		{math.MaxInt64, 2, MaxAttemptDelay},
	} {
		for seed := range uint64(100) {
			got := NextAttemptDelay(c.retryDelay, c.attempt, seed)
			if got < c.want || got > c.want+c.want/25 || got > MaxAttemptDelay {
				t.Fatalf("attempt %d after %v with seed %d: got %v, want %v and at most 4%% more", c.attempt, c.retryDelay, seed, got, c.want)
			}
			if got != NextAttemptDelay(c.retryDelay, c.attempt, seed) {
				t.Fatal("the same seed must give the same wait")
			}
		}
	}
}

func TestNextAttemptDelaySpreads(t *testing.T) {
	seen := map[time.Duration]bool{}
	for seed := range uint64(1000) {
		seen[NextAttemptDelay(time.Minute, 2, seed)] = true
	}
	if len(seen) < 990 {
		t.Fatalf("a thousand deliveries share %d waits", len(seen))
	}
}

func TestNextAttemptDelayKeepsItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		retryDelay := time.Duration(rapid.IntRange(1, 86400).Draw(t, "seconds")) * time.Second
		attempt := rapid.IntRange(2, 11).Draw(t, "attempt")
		got := NextAttemptDelay(retryDelay, attempt, rapid.Uint64().Draw(t, "seed"))
		want := min(retryDelay<<(attempt-2), MaxAttemptDelay)
		if got < want || got > min(want+want*4/100, MaxAttemptDelay) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func TestLengthenDelayNeverShortens(t *testing.T) {
	for _, c := range []struct{ delay, after, want time.Duration }{
		{time.Minute, 0, time.Minute},
		{time.Minute, time.Hour, time.Hour},
		{time.Hour, time.Minute, time.Hour},
		{time.Minute, 48 * time.Hour, MaxAttemptDelay},
	} {
		if got := LengthenDelay(c.delay, c.after); got != c.want {
			t.Errorf("LengthenDelay(%v, %v) = %v, want %v", c.delay, c.after, got, c.want)
		}
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2024, 1, 15, 10, 30, 0, 0, time.UTC)
	for _, c := range []struct {
		header string
		want   time.Duration
		ok     bool
	}{
		{"0", 0, true},
		{"120", 2 * time.Minute, true},
		{"  7 ", 7 * time.Second, true},
		{"86400", MaxAttemptDelay, true},
		{"86401", MaxAttemptDelay, true},
		{strings.Repeat("9", 100), MaxAttemptDelay, true},
		{"Mon, 15 Jan 2024 10:31:00 GMT", time.Minute, true},
		{"Monday, 15-Jan-24 10:31:00 GMT", time.Minute, true},
		{"Mon Jan 15 10:31:00 2024", time.Minute, true},
		{"Mon, 15 Jan 2024 10:00:00 GMT", 0, true},
		{"Fri, 31 Dec 9999 23:59:59 GMT", MaxAttemptDelay, true},
		{"Sat, 01 Jan 0000 00:00:00 GMT", 0, true},
		{"", 0, false},
		{"soon", 0, false},
		{"-5", 0, false},
		{"1.5", 0, false},
		{"+5", 0, false},
		{"٣", 0, false},
		{"2024-01-15T10:31:00Z", 0, false},
	} {
		got, ok := ParseRetryAfter(c.header, now)
		if got != c.want || ok != c.ok {
			t.Errorf("ParseRetryAfter(%.40q) = %v, %v, want %v, %v", c.header, got, ok, c.want, c.ok)
		}
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	f.Add("120")
	f.Add("Mon, 15 Jan 2024 10:31:00 GMT")
	f.Fuzz(func(t *testing.T, header string) {
		if got, _ := ParseRetryAfter(header, time.Unix(1705314600, 0)); got < 0 || got > MaxAttemptDelay {
			t.Fatalf("%q: %v", header, got)
		}
	})
}
