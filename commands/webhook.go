package commands

import (
	"context"
	"slices"
	"strings"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// webhook returns a webhook that exists. What this process does not know of,
// another may have just registered: then the log is asked.
func (c *Commands) webhook(ctx context.Context, id domain.WebhookID) (domain.Webhook, error) {
	w, _ := c.Directory.Webhook(id)
	if w.Version == 0 {
		if err := c.Directory.CatchUp(ctx); err != nil {
			return domain.Webhook{}, Failed("look for a webhook", err)
		}
		w, _ = c.Directory.Webhook(id)
	}
	if !w.Exists() {
		return domain.Webhook{}, domain.NotFound("webhook")
	}
	return w, nil
}

// Versions are the versions of a webhook that a change is meant for; nil: any.
type Versions []int64

// changeWebhook appends what decide says of the webhook. The result is the webhook after
// the change. With versions, what is decided holds for those alone: any other is Stale. Changes
// of one webhook wait for each other here. Only those of other processes make it decide again, so
// that each is made, however many come.
func (c *Commands) changeWebhook(ctx context.Context, caller Caller, id domain.WebhookID, versions Versions,
	decide func(domain.Webhook) ([]domain.Change, error),
) (w domain.Webhook, err error) {
	turn := &c.changing[int(id[len(id)-1])%len(c.changing)]
	turn.Lock()
	defer turn.Unlock()
	var changes []domain.Change
	appended, err := c.Directory.Execute(ctx, func(ctx context.Context) (eventstore.Unit, error) {
		if w, err = c.WebhookOf(ctx, id, versions); err != nil {
			return eventstore.Unit{}, err
		}
		changes, err = decide(w)
		return caller.unit(id.Stream(), w.Version, changes...), err
	})
	if err != nil {
		return domain.Webhook{}, Failed("change a webhook", err)
	}
	for _, change := range changes {
		w = w.Evolve(change, appended.RecordedAt)
	}
	return w, nil
}

// WebhookOf returns the webhook, which must be of one of the versions, if there are some: else it
// is Stale.
func (c *Commands) WebhookOf(ctx context.Context, id domain.WebhookID, versions Versions) (domain.Webhook, error) {
	w, err := c.webhook(ctx, id)
	if err == nil && versions != nil && slices.Max(versions) > w.Version { // this process may be behind
		err = c.Directory.CatchUp(ctx)
		w, _ = c.Directory.Webhook(id)
	}
	if err == nil && versions != nil && !slices.Contains(versions, w.Version) {
		err = domain.Stale("the webhook has changed since: its version is not the one in If-Match")
	}
	return w, err
}

// CheckSpec is domain.CheckSpec. While what it returns is held, the webhook's filter is
// not compiled again. A change may keep types that left the file of event types.
func (c *Commands) CheckSpec(ctx context.Context, spec domain.WebhookSpec, creating bool) (domain.ApprovedSpec, error) {
	const perByte = 32
	task := c.Log.Limiter.Task()
	defer task.End()
	if err := task.Spend(ctx, perByte*len(spec.Filters.Value)); err != nil {
		return domain.ApprovedSpec{}, Failed("check a webhook", err)
	}
	approved, err := domain.CheckSpec(c.Catalog, spec, creating)
	if !creating && slices.ContainsFunc(domain.FieldsOf(err), func(f domain.FieldError) bool { return strings.HasPrefix(f.Field, "events") }) {
		return domain.CheckSpec(c.Catalog.With(c.subscribed()), spec, creating)
	}
	return approved, err
}

// subscribed returns the types that webhooks name, and their groups (patient.*).
func (c *Commands) subscribed() (types []domain.EventType) {
	for w := range c.Directory.Newest() {
		for _, pattern := range w.Events {
			if w.Exists() && pattern != string(domain.AllEvents) {
				types = append(types, domain.EventType(pattern))
			}
		}
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// seal encrypts what was asked for the webhook. What is the same as is stored
// stays sealed as it is, and a header whose value is the mask keeps its value.
func (c *Commands) seal(id domain.WebhookID, stored domain.Webhook, asked domain.ApprovedSpec) (domain.Sealing, error) {
	sealing := domain.Sealing{Headers: []domain.SealedHeader{}}
	var refused []domain.FieldError
	for _, h := range asked.Headers() {
		is := storedHeader(stored, h.Name)
		if h.Value == domain.Masked {
			if is == "" {
				refused = append(refused, domain.FieldError{Field: "headers." + h.Name, Message: "has the mask for a value, and no value is stored; give the value itself"})
			}
			sealing.Headers = append(sealing.Headers, domain.SealedHeader{Name: h.Name, Value: is})
			continue
		}
		sealed, err := c.sealChanged(id, HeaderField(h.Name), is, h.Value)
		if err != nil {
			return domain.Sealing{}, err
		}
		sealing.Headers = append(sealing.Headers, domain.SealedHeader{Name: h.Name, Value: sealed})
	}
	if err := domain.CheckFields(refused); err != nil {
		return domain.Sealing{}, err
	}
	if err := asked.CheckAuthHeader(stored); err != nil {
		return domain.Sealing{}, err
	}
	var err error
	if sealing.Auth, err = c.sealAuth(id, stored, asked.Auth()); err != nil {
		return domain.Sealing{}, err
	}
	sealing.Secret, err = c.sealChanged(id, SecretField, stored.Secret, asked.Secret().Reveal())
	return sealing, err
}

// sealAuth encrypts the secrets of credentials. One that is the mask keeps what is stored, unless the
// token_url changes: a caller who may change webhooks, but not read secrets, must not have them sent
// to another server.
// A certificate of which a part is new is checked whole.
func (c *Commands) sealAuth(id domain.WebhookID, stored domain.Webhook, asked domain.AuthSpec) (domain.Auth, error) {
	sealed := domain.Auth{Type: asked.Type, TokenURL: asked.TokenURL, ClientID: asked.ClientID, Scope: asked.Scope}
	if sealed == (domain.Auth{}) {
		return sealed, nil
	}
	was := domain.Auth{Type: asked.Type}
	missing := "no value is stored that could be kept"
	if stored.Auth != nil && stored.Auth.Type == asked.Type {
		if stored.Auth.TokenURL == asked.TokenURL {
			was = *stored.Auth
		} else {
			missing = "the stored value is kept only for the token_url that it was given for"
		}
	}
	changed := false
	for i, s := range asked.Secrets() {
		is, to, field := *was.Secrets()[i].Value, sealed.Secrets()[i].Value, AuthField(s.Name)
		if *to = is; s.Value.Reveal() == domain.Masked {
			text, err := c.Vault.Decrypt(id, field, is)
			if err != nil || is == "" {
				return sealed, domain.Invalid(field, "has the mask for a value, and "+missing+"; give the value itself")
			}
			*s.Value = domain.NewSecret(text)
			continue
		}
		if asked.Type == domain.AuthCertificate { // white space around PEM is no change
			*s.Value = domain.NewSecret(strings.TrimSpace(s.Value.Reveal()) + "\n")
		}
		var err error
		if *to, err = c.sealChanged(id, field, is, s.Value.Reveal()); err != nil {
			return sealed, err
		}
		changed = changed || *to != is
	}
	if asked.Type != domain.AuthCertificate || !changed {
		return sealed, nil
	}
	_, refused := domain.ParseCertificate(asked.Certificate.Reveal(), asked.PrivateKey.Reveal(), c.Log.Clock().Now())
	return sealed, domain.CheckFields(refused)
}

func storedHeader(w domain.Webhook, name string) domain.Sealed {
	for _, h := range w.Headers {
		if strings.EqualFold(h.Name, name) {
			return h.Value
		}
	}
	return ""
}

// sealChanged returns is when it opens to the text. One that does not open (its
// key is gone) is replaced: that is how such a webhook is mended.
func (c *Commands) sealChanged(id domain.WebhookID, field string, is domain.Sealed, text string) (domain.Sealed, error) {
	if is != "" {
		if was, err := c.Vault.Decrypt(id, field, is); err == nil && was == text {
			return is, nil
		}
	}
	sealed, err := c.Vault.Encrypt(id, field, text)
	if err != nil {
		return "", domain.Internal("seal a secret", err)
	}
	return sealed, nil
}
