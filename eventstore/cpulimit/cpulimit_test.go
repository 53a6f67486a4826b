package cpulimit

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// exhausted returns a limiter of which the task has the only slot.
func exhausted(t *testing.T) (*Limiter, *Task) {
	t.Helper()
	l := New()
	l.idle = 1
	holder := l.Task()
	if err := holder.Spend(t.Context(), Expensive); err != nil {
		t.Fatal(err)
	}
	return l, &holder
}

func TestCheapTasksDoNotWait(t *testing.T) {
	l, holder := exhausted(t)
	defer holder.End()
	for range 1000 {
		cheap := l.Task()
		for range free / 1024 {
			if err := cheap.Spend(t.Context(), 1024); err != nil {
				t.Fatal(err)
			}
		}
		cheap.End()
	}
}

// A caller with many tasks has no more turns than one with few.
func TestCallersTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, holder := exhausted(t)
		var order []string
		var group sync.WaitGroup
		run := func(caller string) {
			ctx := WithCaller(t.Context(), caller)
			group.Go(func() {
				task := l.Task()
				defer task.End()
				if err := task.Spend(ctx, Expensive); err != nil {
					t.Error(err)
				}
				order = append(order, caller)
			})
			synctest.Wait()
		}
		for range 3 {
			run("greedy")
		}
		run("modest")
		run("modest")
		holder.End()
		group.Wait()
		for i, want := range []string{"greedy", "modest", "greedy", "modest", "greedy"} {
			if order[i] != want {
				t.Fatalf("order: %v", order)
			}
		}
		if l.idle != 1 || len(l.waiting)+len(l.callers) > 0 {
			t.Errorf("left: %d slots, %d callers", l.idle, len(l.callers))
		}
	})
}

// A long task passes its slot on to one that waits, and goes on after it.
func TestLongTasksPassTheirTurnOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, holder := exhausted(t)
		done := false
		go func() {
			task := l.Task()
			defer task.End()
			if err := task.Spend(t.Context(), Expensive); err != nil {
				t.Error(err)
			}
			done = true
		}()
		synctest.Wait()
		if err := holder.Spend(t.Context(), 1); err != nil || done {
			t.Fatalf("passed on before its time: %v, %v", done, err)
		}
		time.Sleep(slice)
		if err := holder.Spend(t.Context(), 1); err != nil || !done {
			t.Errorf("not passed on: %v, %v", done, err)
		}
		holder.End()
	})
}

// Whatever is given up, as many tasks compute as there are slots.
func TestSlotsAreNeitherLostNorMultiplied(t *testing.T) {
	l := New()
	l.idle = 2
	var computing atomic.Int32
	var group sync.WaitGroup
	for i := range 50 {
		ctx, cancel := context.WithCancel(WithCaller(t.Context(), string(rune('a'+i%3))))
		group.Go(func() {
			defer cancel()
			for range 100 {
				task := l.Task()
				err := task.Spend(ctx, Expensive)
				if err == nil {
					if n := computing.Add(1); n > 2 {
						t.Errorf("%d at once", n)
					}
					computing.Add(-1)
				} else if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				task.End()
			}
		})
		if i%2 == 0 {
			group.Go(cancel)
		}
	}
	group.Wait()
	if l.idle != 2 || len(l.waiting)+len(l.callers) > 0 {
		t.Errorf("left: %d slots, %d callers", l.idle, len(l.callers))
	}
}
