package commands

import (
	"context"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// AcknowledgeAlert says that the caller knows of the alert, which stays open and notifies no
// more. It returns where the log has that, 0 if somebody did it before: then nothing changes.
func (c *Commands) AcknowledgeAlert(ctx context.Context, caller Caller, key domain.AlertKey, id domain.AlertID) (eventstore.Position, error) {
	appended, err := c.Directory.Execute(ctx, func(ctx context.Context) (eventstore.Unit, error) {
		alert, err := FoldAlert(ctx, c.Log, key)
		if err != nil {
			return eventstore.Unit{}, err
		}
		changes, err := domain.DecideAcknowledge(alert, key, id)
		return caller.unit(key.Stream(), alert.Version, changes...), err
	})
	return appended.First, Failed("acknowledge an alert", err)
}

// FoldAlert returns the alerts of one kind about one webhook as the log has them.
func FoldAlert(ctx context.Context, log *eventstore.Log, key domain.AlertKey) (alert domain.Alert, err error) {
	events, err := log.Load(ctx, key.Stream())
	if err != nil {
		return alert, err
	}
	return fold(alert, events)
}
