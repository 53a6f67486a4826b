package http

import (
	"context"
	"net/http"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

// answerKey is what answers depend on: they are not shared between callers, whose work takes turns.
type answerKey struct{ actor, path, query string }

// sharedAnswer makes an answer once for all requests of a caller for the same that wait for it at a
// time. Each gets one that was begun after it asked, or would be the same, so that it holds all that
// was there by then.
type sharedAnswer struct {
	turn  *semaphore.Weighted // held by who makes the answer, or takes it
	asked atomic.Int64        // how many requests there were

	served int64 // how many requests there were when the last was begun
	madeAnswer
	err error
}

func newSharedAnswer() *sharedAnswer { return &sharedAnswer{turn: semaphore.NewWeighted(1)} }

// madeAnswer is the JSON of an answer, with the payloads in it if the operation may show some.
type madeAnswer struct {
	body     []byte
	payloads domain.Payloads
	stands   func(context.Context) bool // reports whether it would be the same now; nil: it is not known
}

// madeOf returns the answer with its payloads.
func madeOf(body []byte) madeAnswer {
	return madeAnswer{body: body, payloads: domain.FindPayloads(body)}
}

// get returns the answer that one of the requests for it makes.
func (one *sharedAnswer) get(ctx context.Context, produce func(context.Context) (madeAnswer, error)) (madeAnswer, error) {
	number := one.asked.Add(1)
	if err := one.turn.Acquire(ctx, 1); err != nil {
		return madeAnswer{}, err
	}
	defer one.turn.Release(1)
	if one.served >= number {
		return one.madeAnswer, one.err
	}
	asked := one.asked.Load()
	if one.err == nil && one.stands != nil && one.stands(ctx) {
		one.served = asked
		return one.madeAnswer, nil
	}
	made, err := produce(ctx)
	if ctx.Err() == nil && len(made.body) <= smallAnswer { // else the next one makes its own
		one.served, one.madeAnswer, one.err = asked, made, err
	}
	return made, err
}

// respondShared answers with the JSON that produce makes of nothing but the request's path and parameters.
func (s *Server) respondShared(x *request, r *http.Request, produce func(context.Context) ([]byte, error)) error {
	find := func(ctx context.Context) (made madeAnswer, err error) {
		ctx, basis := projections.WithBasis(ctx)
		configured := s.commands.Directory.Configuration() // what is erased may still open here until that is known
		made.stands = func(ctx context.Context) bool {
			return basis.Stands(ctx) && s.commands.Directory.Configuration() == configured
		}
		if made.body, err = produce(ctx); err == nil && x.operation.payloads {
			made.payloads = domain.FindPayloads(made.body)
		}
		return made, err
	}
	one, leave := s.shared.enter(answerKey{x.caller.Actor, r.URL.Path, r.URL.RawQuery}, newSharedAnswer)
	defer leave()
	made, err := one.get(r.Context(), find)
	if err != nil {
		return err
	}
	return x.respondMade(made)
}
