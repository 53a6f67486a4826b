package vault

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/migrations/testdb"
)

func openPool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), testdb.New(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func always(decrypts bool) func(*Vault) bool { return func(*Vault) bool { return decrypts } }

// Machines that start together on an empty database: one makes the keyset, and the others
// are told that they lack it.
func TestOneKeysetForADatabase(t *testing.T) {
	pool := openPool(t)
	paths := make([]string, 4)
	errs := make([]error, len(paths))
	var all sync.WaitGroup
	for i := range paths {
		paths[i] = filepath.Join(t.TempDir(), "keys.json")
		all.Go(func() { _, errs[i] = OpenFor(t.Context(), pool, paths[i], always(true)) })
	}
	all.Wait()
	first := ""
	for i, err := range errs {
		switch {
		case err == nil && first == "":
			first = paths[i]
		case !errors.Is(err, ErrMissing):
			t.Errorf("got %v", err)
		}
	}
	content, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	for i, path := range paths {
		if path == first {
			continue
		}
		if errs[i] == nil {
			t.Fatal("two machines have made a keyset")
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenFor(t.Context(), pool, path, always(true)); err != nil {
			t.Errorf("with the file of the first machine: %v", err)
		}
	}
}

func TestForeignKeyset(t *testing.T) {
	pool := openPool(t)
	own, other := filepath.Join(t.TempDir(), "keys.json"), filepath.Join(t.TempDir(), "keys.json")
	foreign, err := Open(other, false)
	if err != nil {
		t.Fatal(err)
	}
	// Secrets are there from before there was a probe.
	if _, err := OpenFor(t.Context(), pool, other, always(false)); !errors.Is(err, ErrForeign) {
		t.Errorf("it decrypts no secret: %v", err)
	}
	keys, err := OpenFor(t.Context(), pool, own, always(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFor(t.Context(), pool, other, always(true)); !errors.Is(err, ErrForeign) {
		t.Errorf("another keyset: %v", err)
	}
	if err := foreign.CheckProbe(t.Context(), pool); !errors.Is(err, ErrForeign) {
		t.Errorf("another keyset: %v", err)
	}
	// A copy of the file from before a key was added lacks what encrypts now.
	copied, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Rotate(); err != nil {
		t.Fatal(err)
	}
	if err := keys.StoreProbe(t.Context(), pool); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, copied, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFor(t.Context(), pool, other, always(true)); !errors.Is(err, ErrForeign) {
		t.Errorf("an old copy: %v", err)
	}
	if _, err := OpenFor(t.Context(), pool, own, always(true)); err != nil {
		t.Errorf("the keyset itself: %v", err)
	}
}
