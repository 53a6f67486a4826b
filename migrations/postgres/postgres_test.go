package postgres

import (
	"context"
	"log/slog"
	"testing"
)

func TestStartStopStart(t *testing.T) {
	ctx := t.Context()
	o := Options{DataDir: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	s, err := Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	a, err := Attach(ctx, o.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	_ = a.Stop(ctx)
	if err := s.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	s, err = Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
}
