package saga

import (
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
)

func TestWorkerPoolHandlesManyAtOnceAndKeepsSome(t *testing.T) {
	const most, many = 3, 20
	refused := errors.New("refused")
	var begun sync.WaitGroup
	begun.Add(many)
	end := make(chan struct{})
	c := newWorkerPool(most, func(msg *message.Message) error {
		begun.Done()
		<-end
		if msg.UUID == "refused" {
			return refused
		}
		return nil
	})
	var callers sync.WaitGroup
	for i := range many {
		callers.Go(func() {
			name, want := "taken", error(nil)
			if i%2 == 0 {
				name, want = "refused", refused
			}
			if err := c.handle(message.NewMessage(name, nil)); !errors.Is(err, want) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	begun.Wait() // all of them at once, whatever the pool keeps
	close(end)
	callers.Wait()
	if n := len(c.idle); n != most {
		t.Errorf("%d workers are idle, not %d", n, most)
	}
	c.close()
	begun.Add(1)
	if err := c.handle(message.NewMessage("taken", nil)); err != nil { // one that was on its way
		t.Error(err)
	}
	if n := len(c.idle); n != 0 {
		t.Errorf("%d workers are idle after its end", n)
	}
}

// TestWorkerPoolUsesTheSameGoroutineAgain is what the pool is for.
func TestWorkerPoolUsesTheSameGoroutineAgain(t *testing.T) {
	var ran []string
	c := newWorkerPool(1, func(*message.Message) error {
		stack := make([]byte, 64)
		name, _, _ := strings.Cut(string(stack[:runtime.Stack(stack, false)]), " [")
		ran = append(ran, name)
		return nil
	})
	defer c.close()
	for range 2 {
		if err := c.handle(message.NewMessage("one", nil)); err != nil {
			t.Fatal(err)
		}
	}
	if ran[0] != ran[1] {
		t.Errorf("%s, then %s", ran[0], ran[1])
	}
}
