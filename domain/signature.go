package domain

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Two signatures go with every call of a webhook that has a secret:
//
//   - X-Webhook-Signature, the guide's: "sha256=" and the hex HMAC-SHA256 of the exact
//     body bytes, keyed with the secret's UTF-8 bytes as they are, whatever the secret
//     looks like (the guide's section "HMAC Подпись").
//   - webhook-signature, of the Standard Webhooks specification: "v1," and the base64
//     HMAC-SHA256 of "<webhook-id>.<webhook-timestamp>.<body>", keyed with the decoded
//     rest of a `whsec_` secret, or the UTF-8 bytes of any other. Several signatures
//     stand side by side with a space between them while a secret is being rotated.
//
// A `whsk_` secret is a private key: it signs webhook-signature alone, as "v1a," and the
// base64 of the ed25519 signature of the same.
const (
	guideSignaturePrefix      = "sha256="
	standardSignaturePrefix   = "v1,"
	asymmetricSignaturePrefix = "v1a,"
)

// SigningKey signs bodies with one secret. It is made once for a secret and reused; it
// is safe for concurrent use and keeps its HMAC states for the next call.
type SigningKey struct {
	guide    macs
	standard macs
	private  ed25519.PrivateKey // of a `whsk_` secret, which has no macs
	public   ed25519.PublicKey  // of a `whpk_` key alone, which signs nothing
}

// Asymmetric reports whether the key makes no X-Webhook-Signature.
func (k *SigningKey) Asymmetric() bool { return k.private != nil || k.public != nil }

// Equal reports whether both keys make the same signatures.
func (k *SigningKey) Equal(other *SigningKey) bool {
	return k.private.Equal(other.private) && bytes.Equal(k.guide.key, other.guide.key)
}

// NewSigningKey prepares a secret for signing; of no secret it makes no key (nil). A
// `whsec_` or `whsk_` secret that CheckSecret refuses signs with its bytes.
func NewSigningKey(secret Secret) *SigningKey {
	if secret.IsZero() {
		return nil
	}
	if private, err := privateKey(secret.Reveal()); err == nil && private != nil {
		return &SigningKey{private: private}
	}
	raw := []byte(secret.Reveal())
	decoded, err := standardKey(secret.Reveal())
	if err != nil {
		decoded = raw
	}
	return &SigningKey{guide: newMACs(raw), standard: newMACs(decoded)}
}

// NewVerifyingKey returns what a receiver verifies with: the key of a secret, or a `whpk_` key.
func NewVerifyingKey(secret Secret) *SigningKey {
	if public, err := publicKey(secret.Reveal()); err == nil && public != nil {
		return &SigningKey{public: public}
	}
	return NewSigningKey(secret)
}

// CheckVerifyingKey returns what is wrong with what NewVerifyingKey takes, as CheckSecret does.
func CheckVerifyingKey(field string, secret Secret) []FieldError {
	if _, err := publicKey(secret.Reveal()); err != nil {
		return []FieldError{{Field: field, Message: "starts with whpk_, but is not the public key of a webhook: the rest must be base64 of 32 bytes"}}
	}
	return CheckSecret(field, secret)
}

// publicKey returns the ed25519 key of a `whpk_` text, nil of any other.
func publicKey(text string) (ed25519.PublicKey, error) {
	encoded, ok := strings.CutPrefix(text, publicPrefix)
	if !ok {
		return nil, nil
	}
	public, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(public) != ed25519.PublicKeySize {
		return nil, errors.New("not a public key")
	}
	return public, nil
}

// standardKey is the key that a Standard Webhooks library makes of the secret.
func standardKey(secret string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(secret, secretPrefix)
	if !ok {
		return []byte(secret), nil
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err == nil && len(key) == 0 {
		err = fmt.Errorf("nothing after %s", secretPrefix)
	}
	return key, err
}

// privateKey returns the ed25519 key of a `whsk_` secret, nil of any other.
func privateKey(secret string) (ed25519.PrivateKey, error) {
	encoded, ok := strings.CutPrefix(secret, privatePrefix)
	if !ok {
		return nil, nil
	}
	pair, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(pair) != ed25519.PrivateKeySize {
		return nil, errors.New("no private key")
	}
	key := ed25519.NewKeyFromSeed(pair[:ed25519.SeedSize])
	if !key.Equal(ed25519.PrivateKey(pair)) {
		return nil, errors.New("the private and the public key do not match")
	}
	return key, nil
}

// AppendGuide appends the value of X-Webhook-Signature for body.
func (k *SigningKey) AppendGuide(dst, body []byte) []byte {
	m := k.guide.get()
	defer k.guide.put(m)
	m.hash.Write(body) // a hash never fails
	dst = append(dst, guideSignaturePrefix...)
	return hex.AppendEncode(dst, m.hash.Sum(m.sum[:0]))
}

// AppendStandard appends one signature of webhook-signature for body, the delivery's id
// and the time of the attempt.
func (k *SigningKey) AppendStandard(dst []byte, id string, at time.Time, body []byte) []byte {
	if k.private != nil {
		signed := append(fmt.Appendf(nil, "%s.%d.", id, at.Unix()), body...)
		return base64.StdEncoding.AppendEncode(append(dst, asymmetricSignaturePrefix...), ed25519.Sign(k.private, signed))
	}
	m := k.standard.get()
	defer k.standard.put(m)
	m.head = append(append(m.head[:0], id...), '.')
	m.head = append(strconv.AppendInt(m.head, at.Unix(), 10), '.')
	m.hash.Write(m.head)
	m.hash.Write(body)
	dst = append(dst, standardSignaturePrefix...)
	return base64.StdEncoding.AppendEncode(dst, m.hash.Sum(m.sum[:0]))
}

// VerifyGuide is the receiver's side: whether an X-Webhook-Signature is this key's over
// body. It takes the same time whatever the signature.
func (k *SigningKey) VerifyGuide(body []byte, signature string) bool {
	if k.Asymmetric() {
		return false
	}
	want := k.AppendGuide(make([]byte, 0, len(guideSignaturePrefix)+2*sha256.Size), body)
	return hmac.Equal(want, []byte(signature))
}

// VerifyStandard is the receiver's side of webhook-signature: whether one of the
// signatures in the header is this key's. timestamp is the header webhook-timestamp as
// it came; how old it may be is for the caller to say.
func (k *SigningKey) VerifyStandard(id, timestamp string, body []byte, signatures string) bool {
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return false
	}
	if k.public != nil {
		signed := append(fmt.Appendf(nil, "%s.%d.", id, seconds), body...)
		return slices.ContainsFunc(strings.Fields(signatures), func(one string) bool {
			encoded, ok := strings.CutPrefix(one, asymmetricSignaturePrefix)
			signature, err := base64.StdEncoding.DecodeString(encoded)
			return ok && err == nil && ed25519.Verify(k.public, signed, signature)
		})
	}
	want := k.AppendStandard(nil, id, time.Unix(seconds, 0), body)
	found := false
	for one := range strings.FieldsSeq(signatures) {
		found = hmac.Equal(want, []byte(one)) || found
	}
	return found
}

// Signer signs a webhook's calls: with the secret of now and, during the overlap of
// rotations, with those before. The zero value signs nothing.
type Signer struct {
	Current  *SigningKey
	Previous []*SigningKey // the newest first
}

// macs keeps HMAC-SHA256 states of one key: a state that was reset once starts again
// without hashing the key again.
type macs struct {
	key  []byte
	idle *sync.Pool // of *mac
}

type mac struct {
	hash hash.Hash
	head []byte
	sum  [sha256.Size]byte
}

func newMACs(key []byte) macs { return macs{key: key, idle: new(sync.Pool)} }

func (p macs) get() *mac {
	if m, ok := p.idle.Get().(*mac); ok {
		return m
	}
	return &mac{hash: hmac.New(sha256.New, p.key)}
}

func (p macs) put(m *mac) {
	m.hash.Reset()
	p.idle.Put(m)
}
