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
}

// onLoss returns what makes all parts forget what the log has lost: they go on by what it has.
func (s *server) onLoss(directory *commands.Directory, attempter *commands.Attempter) func(eventstore.Loss) {
	return func(loss eventstore.Loss) {
		directory.Announced([]string{eventstore.AnnouncedConfiguration})
		attempter.Forget()
		directory.Keys.ForgetAll()
		s.saga.TailLost()
		s.repairLater("the alert log_lost is not raised", func(ctx context.Context) error {
			return saga.RecordLoss(ctx, s.log, directory, loss)
		})
	}
}

// repairLater has the work done by repair.
func (s *server) repairLater(undone string, do func(context.Context) error) {
	select {
	case s.repairs <- repair{undone, do}:
	default:
		s.logger.Error(undone + ", and too much waits to try it later")
	}
}

// repair does one after another what repairLater is told, however often it fails, until ctx ends.
func (s *server) repair(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-s.repairs:
			for warned := false; ctx.Err() == nil; warned = true {
				err := r.do(ctx)
				if err == nil {
					break
				}
				if !warned {
					s.logger.Warn(r.undone+" yet, trying again", "error", err)
				}
				_ = eventstore.Sleep(ctx, repairPause)
			}
		}
	}
}
