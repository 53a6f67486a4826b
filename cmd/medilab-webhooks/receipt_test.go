package main

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/medilab/webhooks/commands/receipts"
	"github.com/medilab/webhooks/commands/vault"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

func TestReceiptVerify(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("MEDILAB_DATA_DIR", folder)
	t.Setenv("DATABASE_URL", "") // it needs no database
	file := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	signer := func() *receipts.Signer {
		pool, err := eventstore.OpenPool(t.Context(), testdb.New(t), 2)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		keys, err := vault.Open(filepath.Join(t.TempDir(), "keys.json"), false)
		if err != nil {
			t.Fatal(err)
		}
		s, err := receipts.Open(t.Context(), pool, keys)
		if err != nil {
			t.Fatal(err)
		}
		// Every node that has the keyset signs by the same key; no other one starts.
		if again, err := receipts.Open(t.Context(), pool, keys); err != nil || string(again.PublicKeys()) != string(s.PublicKeys()) {
			t.Errorf("another node has %v, %v", again, err)
		}
		foreign, err := vault.Open(filepath.Join(t.TempDir(), "keys.json"), false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := receipts.Open(t.Context(), pool, foreign); err == nil {
			t.Error("a node with another keyset signs")
		}
		return s
	}
	body := `{"event_type":"patient.created"}`
	sum := sha256.Sum256([]byte(body))
	ours, call := signer(), domain.CallAt(domain.DeliveryID{1}, 7)
	signed, err := ours.Sign(receipts.Receipt{CallID: call, URL: "https://crm.example.com/", BodySHA256: hex.EncodeToString(sum[:])})
	if err != nil {
		t.Fatal(err)
	}
	receipt := file("receipt.jws", string(signed)+"\n")
	file("receipts.json", string(ours.PublicKeys()))
	c := cli{t}
	out, _ := c.run(0, "", "receipt", "verify", receipt, "--body", file("body", body), "--call", call.String())
	c.matches("the result", out, "The receipt is valid: call "+call.String()+" .*\n")
	changed := []byte(string(signed))
	changed[len(changed)/2] ^= 1
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(signed) - 1
	spare := string(signed[:last]) + string(alphabet[strings.IndexByte(alphabet, signed[last])^1]) // bits of no byte
	for name, args := range map[string]string{
		"tampered":     file("tampered.jws", string(changed)),
		"spare bits":   file("spare.jws", spare),
		"wrong key":    receipt + " --key " + file("other.json", string(signer().PublicKeys())),
		"other call":   receipt + " --call 550e8400-e29b-41d4-a716-446655440000",
		"other body":   receipt + " --body " + file("other", body+" "),
		"no such file": filepath.Join(folder, "none"),
		"no receipt":   file("none.jws", "hello"),
		"no key":       receipt + " --key " + filepath.Join(folder, "missing.json"),
	} {
		if out, notes := c.run(1, "", append([]string{"receipt", "verify"}, strings.Fields(args)...)...); out != "" || strings.Count(notes, "\n") != 1 {
			t.Errorf("%s: says %q and %q", name, out, notes)
		}
	}
	c.run(2, "", "receipt", "verify")
}
