package http

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
)

// Requests that come while an answer is made share the next one: it was begun after all of them asked.
func TestAnswersAreShared(t *testing.T) {
	key := answerKey{"ann", "/events", "limit=50"}
	for name, c := range map[string]struct {
		leave bool // the second, who makes the next answer
		same  bool // the answer would be the same again
		keys  []answerKey
		body  []byte
		err   error
		want  int // answers made
	}{
		"by all who ask meanwhile":      {keys: []answerKey{key, key, key, key}, want: 2},
		"and once it would be the same": {keys: []answerKey{key, key, key, key}, same: true, want: 1},
		"not between callers":           {keys: []answerKey{key, {"bob", key.path, key.query}, key, key}, want: 3},
		"not between lists":             {keys: []answerKey{key, {key.actor, key.path, "limit=51"}, {key.actor, "/calls", key.query}}, want: 3},
		"nor of one who left":           {leave: true, keys: []answerKey{key, key, key, key}, want: 3},
		"and a failure is":              {keys: []answerKey{key, key, key}, err: errors.New("no database"), want: 2},
		"but none of much memory":       {keys: []answerKey{key, key, key}, body: make([]byte, smallAnswer+1), want: 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var shared inUse[answerKey, *sharedAnswer]
				second, leave := context.WithCancel(t.Context())
				defer leave()
				release := make(chan struct{})
				var mu sync.Mutex
				made := 0
				var wg sync.WaitGroup
				for i, key := range c.keys {
					one, done := shared.enter(key, newSharedAnswer)
					wg.Go(func() {
						defer done()
						ctx := t.Context()
						if i == 1 {
							ctx = second
						}
						answer, err := one.get(ctx, func(ctx context.Context) (madeAnswer, error) {
							mu.Lock()
							made++
							number := made
							mu.Unlock()
							select {
							case <-release:
							case <-ctx.Done():
								return madeAnswer{}, ctx.Err()
							}
							stands := func(context.Context) bool { return c.same }
							return madeAnswer{body: append(bytes.Clone(c.body), strconv.Itoa(number)...), stands: stands}, c.err
						})
						if c.leave && i == 1 {
							return
						}
						if !errors.Is(err, c.err) || err == nil && !c.same && i > 0 && key == c.keys[0] && string(answer.body) == "1" {
							t.Errorf("request %d got %.9q, %v", i, answer.body, err)
						}
					})
					synctest.Wait() // they ask one after the other
				}
				if c.leave {
					release <- struct{}{} // the second has its turn
					synctest.Wait()
					leave()
				}
				close(release)
				wg.Wait()
				if made != c.want || len(shared.all) != 0 {
					t.Errorf("%d answers were made, not %d, and %d are left", made, c.want, len(shared.all))
				}
			})
		})
	}
}
