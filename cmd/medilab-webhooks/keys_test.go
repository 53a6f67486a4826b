package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/vault"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/testdb"
)

// The keys rotate while a server runs: what was sealed before is sealed with the new
// one, opens as before, and the log says who did it.
func TestKeysRotate(t *testing.T) {
	url, file := testdb.New(t), filepath.Join(t.TempDir(), "keys.json")
	command := func(want int, args ...string) string {
		t.Helper()
		var out, notes bytes.Buffer
		if code := run(t.Context(), append(args, "--database-url", url), strings.NewReader(""), &out, &notes); code != want {
			t.Fatalf("%q exits %d, want %d\n%s%s", args, code, want, &out, &notes)
		}
		return out.String() + notes.String()
	}
	if said := command(1, "keys", "rotate", "--keys", file); !strings.Contains(said, "MEDILAB_KEYS") {
		t.Errorf("without a keyset: %s", said)
	}
	keys, err := vault.Open(file, false)
	if err != nil {
		t.Fatal(err)
	}
	db := databaseOptions{url: url}
	s := openSession(t, db)
	s.commands.Vault = keys
	by := commands.Caller{Actor: "test"}
	spec := domain.WebhookSpec{
		Name: domain.Ask("CRM"), URL: domain.Ask("https://crm.example/"), Events: domain.Ask([]string{"*"}),
		Secret: domain.Ask(domain.NewSecret("the-secret")), Headers: domain.Ask([]domain.Header{{Name: "X-Key", Value: "the-value"}}),
	}
	kept, err := s.commands.RegisterWebhook(t.Context(), by, spec)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"the-second", "a-newer-secret"} {
		if kept, _, err = s.commands.RotateSecret(t.Context(), by, kept.ID, commands.Rotation{Secret: domain.NewSecret(secret), Overlap: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	gone, err := s.commands.RegisterWebhook(t.Context(), by, spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.commands.DeleteWebhook(t.Context(), by, gone.ID, nil); err != nil {
		t.Fatal(err)
	}
	plain, err := s.commands.RegisterWebhook(t.Context(), by, domain.WebhookSpec{Name: spec.Name, URL: spec.URL, Events: spec.Events})
	if err != nil {
		t.Fatal(err)
	}

	if said := command(0, "keys", "rotate", "--stage", "--keys", file); !strings.Contains(said, "seals nothing yet") {
		t.Error(said)
	}
	if said := command(0, "keys", "rotate", "--keys", file); !strings.Contains(said, "2 webhooks are sealed anew, 1 had nothing to do") {
		t.Error(said)
	}
	if said := command(0, "keys", "rewrap", "--keys", file); !strings.Contains(said, "0 webhooks are sealed anew, 3 had nothing to do") {
		t.Error(said)
	}
	if said := command(0, "keys", "list", "--keys", file); strings.Count(said, "opens") != 1 || strings.Count(said, "seals") != 1 {
		t.Error(said)
	}

	if err := s.commands.Directory.CatchUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, before := range []domain.Webhook{kept, gone} {
		now, _ := s.commands.Directory.Webhook(before.ID)
		if now.Headers[0].Value == before.Headers[0].Value || !keys.IsCurrent(now.Headers[0].Value) || !keys.IsCurrent(now.Secret) {
			t.Errorf("not sealed anew: %+v", now)
		}
		if value, err := keys.Decrypt(now.ID, commands.HeaderField("X-Key"), now.Headers[0].Value); err != nil || value != "the-value" {
			t.Errorf("the header opens as %q, %v", value, err)
		}
	}
	now, _ := s.commands.Directory.Webhook(kept.ID)
	if len(now.Previous) != 2 || !keys.IsCurrent(now.Previous[0].Secret) || !keys.IsCurrent(now.Previous[1].Secret) {
		t.Fatalf("not sealed anew: %+v", now.Previous)
	}
	for sealed, want := range map[domain.Sealed]string{now.Secret: "a-newer-secret", now.Previous[0].Secret: "the-second", now.Previous[1].Secret: "the-secret", kept.Secret: "a-newer-secret"} {
		if got, err := keys.Decrypt(now.ID, commands.SecretField, sealed); err != nil || got != want {
			t.Errorf("a secret opens as %q, %v, want %q", got, err, want)
		}
	}
	if untouched, _ := s.commands.Directory.Webhook(plain.ID); untouched.Version != plain.Version {
		t.Error("a webhook without secrets has changed")
	}

	log := command(0, "audit", "log", "--json")
	for _, action := range []string{`"key.staged"`, `"key.rotated"`, `"secrets.resealed"`} {
		if n := strings.Count(log, action); n != 1 {
			t.Errorf("the log has %s %d times", action, n)
		}
	}
	for line := range strings.Lines(log) {
		if strings.Contains(line, "admin.acted") && !strings.Contains(line, `"actor":"command line (`) {
			t.Errorf("nobody did it: %s", line)
		}
	}
	for _, secret := range []string{"the-secret", "a-newer-secret", "the-value"} {
		if strings.Contains(log, secret) {
			t.Errorf("%s is in the log", secret)
		}
	}
}
