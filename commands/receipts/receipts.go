// Package receipts signs what was sent, so that it can be proved without this server: a
// receipt is a JWS (RFC 7515, EdDSA) over the record of one call.
package receipts

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/commands/vault"
	"github.com/medilab/webhooks/domain"
)

// Receipt says what was sent where and when, and what came of it, as the log recorded it.
type Receipt struct {
	CallID         domain.CallID     `json:"call_id"`
	DeliveryID     domain.DeliveryID `json:"delivery_id"`
	EventID        domain.EventID    `json:"event_id"` // of a batch: its first event's
	EventType      string            `json:"event_type"`
	WebhookID      domain.WebhookID  `json:"webhook_id"`
	Attempt        int               `json:"attempt"`
	URL            string            `json:"url"`
	SentAt         time.Time         `json:"sent_at"`
	BodySHA256     string            `json:"body_sha256"` // hex, of the exact bytes of the body
	Status         string            `json:"status"`      // success, failed
	ResponseStatus *int              `json:"response_status"`
	Position       int64             `json:"position"` // of the record in the log
	Seal           string            `json:"seal"`     // hex, of the log up to that record's batch
}

// Signer signs receipts with the key that all nodes of a database share.
type Signer struct {
	key    jose.SigningKey
	id     string
	public []byte
}

// The types of what is signed, so that none passes for another.
const (
	typeReceipt = "medilab-receipt"
	typeArchive = "medilab-archive"
)

// keyField is what the keyset binds the encrypted key to; it belongs to no webhook.
const keyField = "receipts key"

// Open returns the signer of the database, whose key it makes if there is none. The keyset
// encrypts the key.
func Open(ctx context.Context, pool *pgxpool.Pool, keys *vault.Vault) (*Signer, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := rand.Read(seed); err != nil {
		return nil, fmt.Errorf("make the receipts' key: %w", err)
	}
	fresh, err := keys.Encrypt(domain.WebhookID{}, keyField, base64.StdEncoding.EncodeToString(seed))
	if err != nil {
		return nil, err
	}
	var stored domain.Sealed
	if _, err = pool.Exec(ctx, `INSERT INTO medilab.receipt_key (encrypted) VALUES ($1) ON CONFLICT DO NOTHING`, fresh); err == nil {
		err = pool.QueryRow(ctx, `SELECT encrypted FROM medilab.receipt_key`).Scan(&stored)
	}
	if err != nil {
		return nil, fmt.Errorf("read the receipts' key: %w", err)
	}
	text, err := keys.Decrypt(domain.WebhookID{}, keyField, stored)
	if err != nil {
		return nil, err
	}
	if seed, err = base64.StdEncoding.DecodeString(text); err != nil || len(seed) != ed25519.SeedSize {
		return nil, errors.New("the receipts' key is damaged")
	}
	return newSigner(ed25519.NewKeyFromSeed(seed))
}

func newSigner(private ed25519.PrivateKey) (*Signer, error) {
	key := jose.JSONWebKey{Key: private.Public(), Algorithm: string(jose.EdDSA), Use: "sig"}
	thumbprint, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("name the receipts' key: %w", err)
	}
	key.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint)
	public, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key}})
	if err != nil {
		return nil, fmt.Errorf("show the receipts' key: %w", err)
	}
	return &Signer{jose.SigningKey{Algorithm: jose.EdDSA, Key: private}, key.KeyID, append(public, '\n')}, nil
}

// PublicKeys returns the JWK set by which receipts are verified.
func (s *Signer) PublicKeys() []byte { return s.public }

// Sign returns the receipt as a JWS in compact form. It is the same each time.
func (s *Signer) Sign(r Receipt) ([]byte, error) { return s.sign(typeReceipt, r) }

// SignArchive returns the manifest of an archive of the log as a JWS in compact form.
func (s *Signer) SignArchive(manifest any) ([]byte, error) { return s.sign(typeArchive, manifest) }

func (s *Signer) sign(what string, document any) ([]byte, error) {
	payload, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("sign a %s: %w", what, err)
	}
	signer, err := jose.NewSigner(s.key, (&jose.SignerOptions{}).WithType(jose.ContentType(what)).WithHeader("kid", s.id))
	if err != nil {
		return nil, fmt.Errorf("use the receipts' key: %w", err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return nil, fmt.Errorf("sign a %s: %w", what, err)
	}
	compact, err := signed.CompactSerialize()
	return []byte(compact), err
}

// Verify returns what the receipt says if a key of the JWK set has signed it.
func Verify(receipt string, keys []byte) (r Receipt, err error) {
	return r, verify(receipt, keys, typeReceipt, "receipt", &r)
}

// VerifyArchive reads the manifest of an archive if a key of the JWK set has signed it.
func VerifyArchive(signed string, keys []byte, manifest any) error {
	return verify(signed, keys, typeArchive, "archive", manifest)
}

func verify(text string, keys []byte, typ, what string, document any) error {
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(keys, &set); err != nil || len(set.Keys) == 0 {
		return errors.New("the key is not a JWK set with a public key")
	}
	signed, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return fmt.Errorf("this is not a signed %s", what)
	}
	header := signed.Signatures[0].Header
	if header.ExtraHeaders[jose.HeaderType] != typ {
		return fmt.Errorf("this is not a signed %s", what)
	}
	known := set.Key(header.KeyID)
	if len(known) == 0 {
		return fmt.Errorf("the %s was signed by another key", what)
	}
	payload, err := signed.Verify(known[0])
	for part := range strings.SplitSeq(strings.TrimSpace(text), ".") {
		_, spare := base64.RawURLEncoding.Strict().DecodeString(part) // some of the last letter's bits are
		err = errors.Join(err, spare)
	}
	if err != nil {
		return fmt.Errorf("the %s was changed after it was signed, or another key signed it", what)
	}
	if err := json.Unmarshal(payload, document); err != nil {
		return fmt.Errorf("the signed %s cannot be read", what)
	}
	return nil
}
