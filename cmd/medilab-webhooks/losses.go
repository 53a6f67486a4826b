package main

import (
	"context"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/eventstore"
)

const (
	maxLosses = 16 // that wait to be recorded
	lossPause = 250 * time.Millisecond
)

// onLoss returns what makes all parts forget what the log has lost: they go on by what it has.
func (s *server) onLoss(directory *commands.Directory, attempter *commands.Attempter) func(eventstore.Loss) {
	return func(loss eventstore.Loss) {
		directory.Announced([]string{eventstore.AnnouncedConfiguration})
		attempter.Forget()
		directory.Keys.ForgetAll()
		s.saga.TailLost()
		select {
		case s.losses <- loss:
		default:
		}
	}
}

// recordLosses raises the alert of each loss, until ctx ends.
func (s *server) recordLosses(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case loss := <-s.losses:
			for warned := false; ctx.Err() == nil; warned = true {
				err := saga.RecordLoss(ctx, s.log, s.commands.Directory, loss)
				if err == nil {
					break
				}
				if !warned {
					s.logger.Warn("the alert log_lost is not raised, trying again", "error", err)
				}
				_ = eventstore.Sleep(ctx, lossPause)
			}
		}
	}
}
