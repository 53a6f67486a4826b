package saga

import (
	"context"
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
	key := domain.AlertKey{Kind: domain.AlertLogLost}
	_, err := directory.Execute(ctx, func(ctx context.Context) (unit eventstore.Unit, err error) {
		alert, err := commands.FoldAlert(ctx, log, key)
		if err != nil {
			return unit, err
		}
		// What stands in the log since then was raised by those who noticed before.
		recorded := alert.RaisedAt.After(loss.Known.RecordedAt)
		lost := domain.LostTail{From: int64(loss.First), To: int64(loss.Known.Position)}
		for _, change := range domain.DecideLogLost(alert, recorded, lost) {
			next, err := alertUnit(domain.Webhook{}, key, alert, change, log.Clock().Now())
			if err != nil {
				return unit, err
			}
			if recorded { // its subscribers know of it
				next.Writes = next.Writes[:1]
			}
			unit.Writes = append(unit.Writes, next.Writes...)
			alert = alert.Evolve(change, log.Clock().Now())
		}
		return unit, nil
	})
	return eventstore.Doing("record that the log has lost its tail", err)
}

// judgeLoss resolves the alert of a loss when it is old.
func (a *Alerts) judgeLoss(ctx context.Context) error {
	key := domain.AlertKey{Kind: domain.AlertLogLost}
	if !a.state.open[key] {
		return nil
	}
	alert, err := commands.FoldAlert(ctx, a.Log, key)
	if err != nil || a.Log.Clock().Now().Sub(alert.RaisedAt) < lossKept {
		return err
	}
	return a.decide(ctx, domain.Webhook{}, []domain.Finding{{Kind: domain.AlertLogLost, Message: "it is a day ago"}})
}
