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

// ApplyWebhooks makes the webhooks those of the list, all of it or nothing, by one append. It
// returns those that differ. The append demands the configuration that it was decided by, so
// that a name stays unique whoever else applies.
func (c *Commands) ApplyWebhooks(ctx context.Context, caller Caller, asked Application) (changed []AppliedWebhook, err error) {
	made := map[string]domain.Webhook{} // by name: decided again, a webhook keeps id and number
	appended, err := c.Directory.Execute(ctx, func(ctx context.Context) (eventstore.Unit, error) {
		if err := c.Directory.CatchUp(ctx); err != nil {
			return eventstore.Unit{}, err
		}
		now := c.Directory.snapshot.Load()
		if changed, err = c.decideApplication(ctx, now.registry, asked, made); err != nil || asked.DryRun {
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
	if appended.First == 0 {
		appended.RecordedAt = c.Now()
	}
	for i := range changed {
		a := &changed[i]
		a.After = a.Before
		for _, change := range a.changes {
			a.After = a.After.Evolve(change, appended.RecordedAt)
		}
	}
	return changed, nil
}

// decideApplication returns what the list changes of the webhooks.
func (c *Commands) decideApplication(ctx context.Context, webhooks *domain.Registry, asked Application, made map[string]domain.Webhook) (changed []AppliedWebhook, err error) {
	approved, named, err := c.checkApplication(ctx, webhooks, asked.Webhooks)
	if err != nil {
		return nil, err
	}
	defer runtime.KeepAlive(approved) // with the filters that are in use from the append on
	sealings, err := c.sealAll(asked.Webhooks, approved, named, made)
	if err != nil {
		return nil, err
	}
	for i, spec := range asked.Webhooks {
		a := AppliedWebhook{Before: named[spec.Name.Value]}
		if a.After = a.Before; a.Before.Exists() {
			a.changes, err = domain.DecideChange(a.Before, approved[i], sealings[i])
		} else if a.After, err = c.number(ctx, made, spec.Name.Value, asked.DryRun); err == nil {
			a.changes = []domain.Change{domain.DecideRegister(a.After.ID, a.After.Number, approved[i], sealings[i])}
		}
		if err != nil {
			return nil, err
		}
		if len(a.changes) > 0 {
			changed = append(changed, a)
		}
	}
	for _, w := range webhooks.All() {
		if _, stays := named[w.Name]; asked.Prune && w.Exists() && !stays {
			changed = append(changed, AppliedWebhook{Before: w, After: w, changes: []domain.Change{domain.WebhookDeleted{}}})
		}
	}
	return changed, nil
}

// sealAll encrypts what was asked for each webhook. It names those that are to be made.
func (c *Commands) sealAll(list []domain.WebhookSpec, approved []domain.ApprovedSpec, named, made map[string]domain.Webhook) (sealings []domain.Sealing, err error) {
	var refused refusals
	sealings = make([]domain.Sealing, len(list))
	for i, spec := range list {
		w := named[spec.Name.Value]
		id := w.ID
		if !w.Exists() {
			if made[spec.Name.Value].ID == (domain.WebhookID{}) {
				unique, err := uuid.NewV7()
				if err != nil {
					return nil, domain.Internal("name a webhook", err)
				}
				made[spec.Name.Value] = domain.Webhook{ID: domain.WebhookID(unique)}
			}
			id = made[spec.Name.Value].ID
		}
		sealings[i], err = c.seal(id, w, approved[i])
		if err != nil && len(domain.FieldsOf(err)) == 0 {
			return nil, err
		}
		refused.add(i, domain.FieldsOf(err)...)
	}
	return sealings, domain.CheckFields(refused)
}

// number gives a webhook that is to be made its number, once; a dry run takes none.
func (c *Commands) number(ctx context.Context, made map[string]domain.Webhook, name string, dryRun bool) (w domain.Webhook, err error) {
	if w = made[name]; w.Number == 0 && !dryRun {
		err = c.Pool.QueryRow(ctx, `SELECT nextval('medilab.webhook_number')`).Scan(&w.Number)
		made[name] = w
	}
	return w, Failed("number a webhook", err)
}

// CheckApplication names everything that is wrong with the webhooks of a list.
func (c *Commands) CheckApplication(ctx context.Context, list []domain.WebhookSpec) error {
	_, _, err := c.checkApplication(ctx, c.Directory.registry(), list)
	return err
}

// checkApplication returns the webhooks that exist for each name of the list too.
func (c *Commands) checkApplication(ctx context.Context, webhooks *domain.Registry, list []domain.WebhookSpec) (approved []domain.ApprovedSpec, named map[string]domain.Webhook, err error) {
	if list == nil { // as nothing says that there shall be none
		return nil, nil, domain.Invalid("webhooks", "is required")
	}
	existing := map[string][]domain.Webhook{}
	for _, w := range webhooks.All() {
		if w.Exists() {
			existing[w.Name] = append(existing[w.Name], w)
		}
	}
	approved, named = make([]domain.ApprovedSpec, len(list)), map[string]domain.Webhook{}
	var refused refusals
	places := map[string]int{}
	for i, spec := range list {
		name := spec.Name.Value
		is := existing[name]
		if before, twice := places[name]; twice && name != "" {
			refused.add(i, domain.FieldError{Field: "name", Message: fmt.Sprintf("is that of webhooks[%d] too: %q", before, name)})
		}
		if len(is) > 1 {
			refused.add(i, domain.FieldError{Field: "name", Message: fmt.Sprintf("is that of webhooks %d and %d: %q; rename one", is[0].Number, is[1].Number, name)})
		}
		places[name] = i
		if named[name] = (domain.Webhook{}); len(is) > 0 {
			named[name] = is[0]
		}
		approved[i], err = c.CheckSpec(ctx, spec, len(is) == 0)
		if err != nil && len(domain.FieldsOf(err)) == 0 {
			return nil, nil, err
		}
		refused.add(i, domain.FieldsOf(err)...)
	}
	return approved, named, domain.CheckFields(refused)
}

// refusals are what is wrong with the webhooks of a list.
type refusals []domain.FieldError

func (r *refusals) add(i int, fields ...domain.FieldError) {
	for _, f := range fields {
		*r = append(*r, domain.FieldError{Field: fmt.Sprintf("webhooks[%d].%s", i, f.Field), Message: f.Message})
	}
}
