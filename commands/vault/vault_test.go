package vault

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/filelock"
)

var (
	clinic = domain.WebhookID(uuid.MustParse("550e8400-e29b-41d4-a716-446655440000"))
	other  = domain.WebhookID(uuid.MustParse("550e8400-e29b-41d4-a716-446655440001"))
)

func TestSealedOpensOnlyWhereItBelongs(t *testing.T) {
	v, err := Open(filepath.Join(t.TempDir(), "keys.json"), false)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := v.Encrypt(clinic, "secret", "тайна")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(sealed), "тайна") {
		t.Fatalf("the text shows: %s", sealed)
	}
	if got, err := v.Decrypt(clinic, "secret", sealed); err != nil || got != "тайна" {
		t.Fatalf("got %q, %v", got, err)
	}
	for name, open := range map[string]func() (string, error){
		"another webhook": func() (string, error) { return v.Decrypt(other, "secret", sealed) },
		"another field":   func() (string, error) { return v.Decrypt(clinic, "headers.x", sealed) },
		"another text":    func() (string, error) { return v.Decrypt(clinic, "secret", sealed[:len(sealed)-4]) },
		"no base64":       func() (string, error) { return v.Decrypt(clinic, "secret", "?") },
	} {
		if got, err := open(); !errors.Is(err, ErrDecrypt) || got != "" {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	if again, err := v.Encrypt(clinic, "secret", "тайна"); err != nil || again == sealed {
		t.Errorf("the same text sealed twice shows that it is the same: %v", err)
	}
}

func TestNothingIsSealedAsNothing(t *testing.T) {
	v, err := Open(filepath.Join(t.TempDir(), "keys.json"), false)
	if err != nil {
		t.Fatal(err)
	}
	if sealed, err := v.Encrypt(clinic, "secret", ""); err != nil || sealed != "" {
		t.Fatalf("got %q, %v", sealed, err)
	}
	if plain, err := v.Decrypt(clinic, "secret", ""); err != nil || plain != "" {
		t.Fatalf("got %q, %v", plain, err)
	}
}

func TestKeysetFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data", "keys.json")
	if _, err := Open(path, true); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), path) {
		t.Fatalf("secrets without a keyset: got %v", err)
	}
	first, err := Open(path, false)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	old, err := first.Encrypt(clinic, "secret", "before")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Rotate(); err != nil {
		t.Fatal(err)
	}
	fresh, err := first.Encrypt(clinic, "secret", "after")
	if err != nil {
		t.Fatal(err)
	}

	again, err := Open(path, true)
	if err != nil {
		t.Fatal(err)
	}
	for sealed, want := range map[domain.Sealed]string{old: "before", fresh: "after"} {
		if got, err := again.Decrypt(clinic, "secret", sealed); err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if old[:7] == fresh[:7] {
		t.Error("the new key does not seal: both texts name the same key")
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".keys-*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestUnreadableKeyset(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, []byte(`{"key": "s3cret"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, false); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Fatalf("got %v", err)
	}
}

// A running server meets what was sealed with a key that came after its start,
// and seals with it from then on.
func TestKeysRotateUnderARunningServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	server, err := Open(path, false)
	if err != nil {
		t.Fatal(err)
	}
	old := encrypt(t, server, "old")
	command, err := Open(path, true)
	if err != nil {
		t.Fatal(err)
	}
	staged, err := command.Stage()
	if err != nil || staged.Primary || !staged.Staged {
		t.Fatalf("%+v, %v", staged, err)
	}
	if early := encrypt(t, command, "early"); early[:6] != old[:6] || !command.IsCurrent(early) {
		t.Error("a staged key seals")
	}
	rotated, err := command.Rotate()
	if err != nil || rotated.ID != staged.ID || !rotated.Primary || len(command.Keys()) != 2 {
		t.Fatalf("%+v, %v, keys %v", rotated, err, command.Keys())
	}
	fresh := encrypt(t, command, "fresh")
	for sealed, want := range map[domain.Sealed]string{old: "old", fresh: "fresh"} {
		if got, err := server.Decrypt(clinic, "secret", sealed); err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if !server.IsCurrent(fresh) || server.IsCurrent(old) || !server.IsCurrent("") || server.IsCurrent("AQ==") {
		t.Error("the server does not tell which key seals now")
	}
	if again := encrypt(t, server, "again"); again[:6] != fresh[:6] {
		t.Error("the server goes on sealing with the old key")
	}
	// A file that breaks leaves the keys as they are.
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := server.Decrypt(clinic, "secret", encrypt(t, server, "still")); err != nil || got != "still" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestOneRotationAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	v, err := Open(path, false)
	if err != nil {
		t.Fatal(err)
	}
	held, err := filelock.Lock(path+".lock", syscall.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Rotate(); !errors.Is(err, ErrRotating) || len(v.Keys()) != 1 {
		t.Fatalf("got %v, keys %v", err, v.Keys())
	}
	// The file of a process that was killed locks nobody out.
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	// Two that hold the same old keyset lose none of each other's keys.
	other, err := Open(path, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []*Vault{v, other} {
		if _, err := v.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	if len(other.Keys()) != 3 {
		t.Errorf("keys %v", other.Keys())
	}
	// Nor is a file replaced whose keys cannot be read, and would be lost.
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Rotate(); err == nil || len(other.Keys()) != 3 {
		t.Errorf("rotated over a broken file: %v, keys %v", err, other.Keys())
	}
	if left, err := os.ReadFile(path); err != nil || string(left) != "{" {
		t.Errorf("the file holds %q, %v", left, err)
	}
}

func encrypt(t *testing.T, v *Vault, text string) domain.Sealed {
	t.Helper()
	sealed, err := v.Encrypt(clinic, "secret", text)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}
