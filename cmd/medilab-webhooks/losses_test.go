package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
)

// Work that keeps failing holds up no other.
func TestRepairsTakeTurns(t *testing.T) {
	s := &server{logger: slog.New(slog.DiscardHandler), repairs: make(chan repair, maxRepairs)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failures := 0
	s.repairLater(repair{undone: "this is not done", do: func(context.Context) error {
		failures++
		return errors.New("not yet")
	}})
	s.repairLater(repair{undone: "that is not done", do: func(context.Context) error {
		if failures < 2 {
			return errors.New("the other was not tried again yet")
		}
		cancel()
		return nil
	}})
	s.runRepairs(ctx)
	if failures < 2 {
		t.Errorf("what fails was tried %d times, want 2 at least", failures)
	}
}
