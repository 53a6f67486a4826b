package saga

import (
	"context"
	"fmt"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// lossKept is how long the alert of a loss stays open.
const lossKept = 24 * time.Hour

// RecordLoss raises the alert that the log has lost its tail: once, however many processes
// notice the same.
func RecordLoss(ctx context.Context, log *eventstore.Log, directory *commands.Directory, loss eventstore.Loss) error {
	_, err := directory.Execute(ctx, func(ctx context.Context) (unit eventstore.Unit, err error) {
		alert, raisedAt, err := logLost(ctx, log)
		if err != nil {
			return unit, err
		}
		// What stands in the log since then was raised by those who noticed before.
		recorded := raisedAt.After(loss.Known.RecordedAt)
		lost := domain.LostTail{From: int64(loss.First), To: int64(loss.Known.Position)}
		for _, change := range domain.DecideLogLost(alert, recorded, lost) {
			next, err := alertUnit(domain.Webhook{}, domain.AlertKey{Kind: domain.AlertLogLost}, alert, change, log.Clock().Now())
			if err != nil {
				return unit, err
			}
			if recorded { // its subscribers know of it
				next.Writes = next.Writes[:1]
			}
			unit.Writes = append(unit.Writes, next.Writes...)
			alert = alert.Evolve(change)
		}
		return unit, nil
	})
	return eventstore.Doing("record that the log has lost its tail", err)
}

// logLost returns the alert about losses, and when it was raised last.
func logLost(ctx context.Context, log *eventstore.Log) (alert domain.Alert, raisedAt time.Time, err error) {
	key := domain.AlertKey{Kind: domain.AlertLogLost}
	events, err := log.Load(ctx, key.Stream())
	for i := range events {
		change, ok := events[i].Value.(domain.Change)
		if !ok {
			return alert, raisedAt, fmt.Errorf("stream %s: %w", key.Stream(), events[i].Err)
		}
		if alert = alert.Evolve(change); alert.Open {
			raisedAt = events[i].RecordedAt
		}
	}
	return alert, raisedAt, err
}

// judgeLoss resolves the alert of a loss when it is old.
func (a *Alerts) judgeLoss(ctx context.Context) error {
	if !a.state.open[domain.AlertKey{Kind: domain.AlertLogLost}] {
		return nil
	}
	_, raisedAt, err := logLost(ctx, a.Log)
	if err != nil || a.Log.Clock().Now().Sub(raisedAt) < lossKept {
		return err
	}
	return a.decide(ctx, domain.Webhook{}, []domain.Finding{{Kind: domain.AlertLogLost, Message: "it is a day ago"}})
}
