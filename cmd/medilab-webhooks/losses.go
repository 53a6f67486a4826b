package main

import (
	"context"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/eventstore"
)

const (
	maxRepairs  = 32 // that wait
	repairPause = 250 * time.Millisecond
)

// repair is what is to be done after the log lost its tail.
type repair struct {
	undone string // what is wrong until it is done
	do     func(context.Context) error
	warned bool
}

// onLoss returns what makes all parts forget what the log has lost: they go on by what it has.
func (s *server) onLoss(directory *commands.Directory, attempter *commands.Attempter) func(eventstore.Loss) {
	return func(loss eventstore.Loss) {
		directory.Announced([]string{eventstore.AnnouncedConfiguration})
		attempter.Forget()
		directory.Keys.ForgetAll()
		s.saga.TailLost()
		s.repairLater(repair{undone: "the alert log_lost is not raised", do: func(ctx context.Context) error {
			return saga.RecordLoss(ctx, s.log, directory, loss)
		}})
	}
}

// repairLater lets the work wait for runRepairs.
func (s *server) repairLater(r repair) {
	select {
	case s.repairs <- r:
	default:
		s.logger.Error(r.undone + ", and too much waits to try it later")
	}
}

// runRepairs does what waits until ctx ends. What fails is tried again after the others.
func (s *server) runRepairs(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-s.repairs:
			err := r.do(ctx)
			if err == nil || ctx.Err() != nil {
				continue
			}
			if !r.warned {
				s.logger.Warn(r.undone+" yet, trying again", "error", err)
				r.warned = true
			}
			s.repairLater(r)
			if eventstore.Sleep(ctx, repairPause) != nil {
				return
			}
		}
	}
}
