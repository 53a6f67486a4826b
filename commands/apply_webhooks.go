package commands

import (
	"context"
	"fmt"
	"runtime"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Application is a list of webhooks, each whole, that are to be the webhooks of their names.
type Application struct {
	Webhooks []domain.WebhookSpec
	Prune    bool // delete the webhooks that the list lacks
	DryRun   bool // only decide
}

// AppliedWebhook is a webhook that an application changes, as it was and as it is then. One
// that is made has no version before.
type AppliedWebhook struct {
	Before, After domain.Webhook
	changes       []domain.Change
}

// wanted is a webhook of a list that has passed all checks.
type wanted struct {
	id      domain.WebhookID
	is      domain.Webhook // zero: it is to be made
	asked   domain.ApprovedSpec
	sealing domain.Sealing
}

// ApplyWebhooks makes the webhooks those of the list, all of it or nothing, by one append. It
// returns those that differ. The append fails if the configuration has changed since the
// decision, so that names stay unique when several callers apply at once.
func (c *Commands) ApplyWebhooks(ctx context.Context, caller Caller, asked Application) (changed []AppliedWebhook, err error) {
	numbers := make([]int64, len(asked.Webhooks)) // decided again, a new webhook keeps its number
	appended, err := c.Directory.Execute(ctx, func(ctx context.Context) (eventstore.Unit, error) {
		if err := c.Directory.CatchUp(ctx); err != nil {
			return eventstore.Unit{}, err
		}
		now := c.Directory.snapshot.Load()
		if changed, err = c.decideApplication(ctx, now.registry, asked, numbers); err != nil || asked.DryRun {
			return eventstore.Unit{}, err
		}
		unit := eventstore.Unit{Configuration: &now.position, Generation: now.generation}
		for _, a := range changed {
			unit.Writes = append(unit.Writes, caller.unit(a.After.ID.Stream(), a.Before.Version, a.changes...).Writes...)
		}
		return unit, nil
	})
	if err != nil {
		return nil, Failed("apply webhooks", err)
	}
	at := appended.RecordedAt
	if asked.DryRun {
		at = c.Now()
	}
	for i := range changed {
		a := &changed[i]
		a.After = a.Before
		for _, change := range a.changes {
			a.After = a.After.Evolve(change, at)
		}
	}
	return changed, nil
}

// decideApplication returns what the list changes of the webhooks. A dry run takes no numbers.
func (c *Commands) decideApplication(ctx context.Context, webhooks *domain.Registry, asked Application, numbers []int64) (changed []AppliedWebhook, err error) {
	list, err := c.checkApplication(ctx, webhooks, asked.Webhooks)
	if err != nil {
		return nil, err
	}
	defer runtime.KeepAlive(list) // with the filters that are in use from the append on
	stays := map[domain.WebhookID]bool{}
	for i, w := range list {
		a := AppliedWebhook{Before: w.is, After: w.is}
		if stays[w.is.ID] = true; w.is.Exists() {
			a.changes, err = domain.DecideChange(w.is, w.asked, w.sealing)
		} else {
			if numbers[i] == 0 && !asked.DryRun {
				err = c.Pool.QueryRow(ctx, `SELECT nextval('medilab.webhook_number')`).Scan(&numbers[i])
			}
			a.After.ID = w.id
			a.changes = []domain.Change{domain.DecideRegister(w.id, numbers[i], w.asked, w.sealing)}
		}
		if err != nil {
			return nil, err
		}
		if len(a.changes) > 0 {
			changed = append(changed, a)
		}
	}
	for _, w := range webhooks.All() {
		if asked.Prune && w.Exists() && !stays[w.ID] {
			changed = append(changed, AppliedWebhook{Before: w, After: w, changes: []domain.Change{domain.WebhookDeleted{}}})
		}
	}
	return changed, nil
}

// CheckApplication names everything that is wrong with the webhooks of a list.
func (c *Commands) CheckApplication(ctx context.Context, list []domain.WebhookSpec) error {
	_, err := c.checkApplication(ctx, c.Directory.registry(), list)
	return err
}

func (c *Commands) checkApplication(ctx context.Context, webhooks *domain.Registry, list []domain.WebhookSpec) ([]wanted, error) {
	if list == nil { // as nothing says that there shall be none
		return nil, domain.Invalid("webhooks", "is required")
	}
	existing := map[string][]domain.Webhook{}
	for _, w := range webhooks.All() {
		if w.Exists() {
			existing[w.Name] = append(existing[w.Name], w)
		}
	}
	var refused []domain.FieldError
	checked, places := make([]wanted, len(list)), map[string]int{}
	for i, spec := range list {
		name := spec.Name.Value
		var wrong []domain.FieldError
		if before, twice := places[name]; twice && name != "" {
			wrong = append(wrong, domain.FieldError{Field: "name", Message: fmt.Sprintf("is that of webhooks[%d] too: %q", before, name)})
		}
		places[name] = i
		is := existing[name]
		if len(is) > 1 {
			wrong = append(wrong, domain.FieldError{Field: "name", Message: fmt.Sprintf("is that of webhooks %d and %d: %q; rename one", is[0].Number, is[1].Number, name)})
		}
		if len(is) > 0 {
			checked[i].is = is[0]
		}
		err := c.checkWanted(ctx, &checked[i], spec)
		if err != nil && len(domain.FieldsOf(err)) == 0 {
			return nil, err
		}
		for _, f := range append(wrong, domain.FieldsOf(err)...) {
			refused = append(refused, domain.FieldError{Field: fmt.Sprintf("webhooks[%d].%s", i, f.Field), Message: f.Message})
		}
	}
	return checked, domain.CheckFields(refused)
}

// checkWanted checks and seals what is asked for one webhook.
func (c *Commands) checkWanted(ctx context.Context, w *wanted, spec domain.WebhookSpec) (err error) {
	if w.asked, err = c.CheckSpec(ctx, spec, !w.is.Exists()); err != nil {
		return err
	}
	if w.id = w.is.ID; !w.is.Exists() {
		w.id = domain.WebhookID(uuid.Must(uuid.NewV7()))
	}
	w.sealing, err = c.seal(w.id, w.is, w.asked)
	return err
}
