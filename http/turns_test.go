package http

import (
	"errors"
	"slices"
	"testing"

	"github.com/medilab/webhooks/domain"
)

// However many turns one caller asks for, others find one, and it gets its own again.
func TestTurnsAreShared(t *testing.T) {
	shared := newTurns(maxLogReads, "looking")
	var got []string
	var releases []func()
	for _, caller := range []string{"a", "a", "a", "a", "b", "b", "c"} {
		release, err := shared.acquire(caller)
		switch {
		case err == nil:
			got, releases = append(got, caller), append(releases, release)
		case !errors.Is(err, domain.KindThrottled):
			t.Fatal(err)
		}
	}
	if !slices.Equal(got, []string{"a", "a", "b", "c"}) {
		t.Errorf("turns went to %v", got)
	}
	if _, err := shared.acquire("d"); !errors.Is(err, domain.KindThrottled) {
		t.Errorf("one turn more: %v", err)
	}
	for _, release := range releases {
		release()
	}
	for range 2 {
		if _, err := shared.acquire("a"); err != nil {
			t.Error(err)
		}
	}
	if len(shared.held) != 1 {
		t.Errorf("held are %v", shared.held)
	}
}
