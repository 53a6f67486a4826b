package domain

import (
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	want := time.Date(2024, 1, 15, 10, 30, 0, 0, time.UTC)
	for _, text := range []string{
		"2024-01-15T10:30:00Z", "2024-01-15t10:30:00z", "2024-01-15T10:30:00.000z", "2024-01-15T13:30:00+03:00", "2024-01-14T10:31:00-23:59",
	} {
		if at, ok := ParseTime(text); !ok || !at.Equal(want) || at.Location() != time.UTC {
			t.Errorf("%s: got %v, %v", text, at, ok)
		}
	}
	for _, text := range []string{
		"", "2024-01-15", "2024-01-15T10:30:00", "2024-01-15T1:30:00Z", "2024-01-15T10:30:00+24:00", "2024-01-15T10:30:00+03:60", "2024-01-15T10:30:00,5Z",
		"2024-02-30T10:30:00Z", "2024-01-15T24:00:00Z", "2024-01-15 10:30:00Z", " 2024-01-15T10:30:00Z", "2024-01-15T10:30:00Z\n", "٢٠٢٤-01-15T10:30:00Z",
		"0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-01:00",
	} {
		if at, ok := ParseTime(text); ok {
			t.Errorf("%q: got %v", text, at)
		}
	}
}
