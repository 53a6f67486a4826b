package commands

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Record writes down the use of an administrator's right that changes no stream
// of its own.
func (c *Commands) Record(ctx context.Context, caller Caller, action domain.AdminAction, detail string) error {
	_, err := c.begin(ctx, caller, domain.AdminID(uuid.Must(uuid.NewV7())).Stream(), domain.AdminActed{Action: action, Detail: detail})
	return Failed("record an action", err)
}

// Resealed says how a resealing went.
type Resealed struct {
	Webhooks int // whose secrets were sealed again
	Current  int // that had nothing to do
	// Unreadable are webhooks whose secrets no key opens: they stay as they are.
	Unreadable []domain.WebhookID
}

// ResealSecrets seals with the newest key what is sealed with older ones, deleted
// webhooks' secrets too. Each webhook is a change of its own, so the read models,
// the other nodes and a rebuild follow as they follow every change; cut off, it
// goes on where it was. progress is called after each webhook.
//
// The log keeps what it had: the old keys stay in the keyset.
func (c *Commands) ResealSecrets(ctx context.Context, caller Caller, progress func(done, total int)) (Resealed, error) {
	if err := c.Directory.CatchUp(ctx); err != nil {
		return Resealed{}, Failed("seal secrets anew", err)
	}
	var result Resealed
	all := c.Directory.Webhooks()
	for i, w := range all {
		done, err := c.reseal(ctx, caller, w.ID)
		switch {
		case errors.Is(err, errUnreadable):
			result.Unreadable = append(result.Unreadable, w.ID)
		case err != nil:
			return result, err
		case done:
			result.Webhooks++
		default:
			result.Current++
		}
		progress(i+1, len(all))
	}
	return result, nil
}

// Decrypts reports whether the keys decrypt a secret of any webhook, or there is none.
func (d *Directory) Decrypts(keys Decrypter) bool {
	none := true
	for _, w := range d.Webhooks() {
		stored := map[string]domain.Sealed{SecretField: w.Secret}
		if w.Auth != nil {
			for _, s := range w.Auth.Secrets() {
				stored[AuthField(s.Name)] = *s.Value
			}
		}
		for _, h := range w.Headers {
			stored[HeaderField(h.Name)] = h.Value
		}
		for field, sealed := range stored {
			if sealed == "" {
				continue
			}
			none = false
			if _, err := keys.Decrypt(w.ID, field, sealed); err == nil {
				return true
			}
		}
	}
	return none
}

func (c *Commands) reseal(ctx context.Context, caller Caller, id domain.WebhookID) (done bool, err error) {
	_, err = c.Directory.Execute(ctx, func(context.Context) (eventstore.Unit, error) {
		w, _ := c.Directory.Webhook(id)
		change, changed, err := c.resealed(w)
		if done = err == nil && changed; !done {
			return eventstore.Unit{}, err
		}
		return caller.unit(id.Stream(), w.Version, change), nil
	})
	return done, Failed("seal secrets anew", err)
}

var errUnreadable = errors.New("no key opens a secret")

func (c *Commands) resealed(w domain.Webhook) (change domain.WebhookResealed, changed bool, err error) {
	again := func(field string, sealed domain.Sealed) domain.Sealed {
		if err != nil || c.Vault.IsCurrent(sealed) {
			return sealed
		}
		var plain string
		if plain, err = c.Vault.Decrypt(w.ID, field, sealed); err != nil {
			err = fmt.Errorf("%w: %s", errUnreadable, field)
			return sealed
		}
		changed = true
		if sealed, err = c.Vault.Encrypt(w.ID, field, plain); err != nil {
			err = domain.Internal("seal "+field, err)
		}
		return sealed
	}
	change.Headers = []domain.SealedHeader{}
	for _, h := range w.Headers {
		change.Headers = append(change.Headers, domain.SealedHeader{Name: h.Name, Value: again(HeaderField(h.Name), h.Value)})
	}
	change.Secret = again(SecretField, w.Secret)
	if w.Auth != nil {
		auth := *w.Auth
		for _, s := range auth.Secrets() {
			*s.Value = again(AuthField(s.Name), *s.Value)
		}
		change.Auth = &auth
	}
	for i, previous := range w.Previous {
		if sealed := again(SecretField, previous.Secret); i == 0 {
			change.PreviousSecret = sealed
		} else {
			change.OlderSecrets = append(change.OlderSecrets, sealed)
		}
	}
	return change, changed, err
}
