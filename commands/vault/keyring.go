package vault

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
)

// KeyringConfig is what a Keyring works with. Pool, Paths and Open are required.
type KeyringConfig struct {
	Pool *pgxpool.Pool
	// Paths returns where events of a type name their subjects.
	Paths func(domain.EventType) domain.SubjectPaths
	// Open returns the keyset, when it is needed first.
	Open func(context.Context) (*Vault, error)
	// Keep is how long content is to be readable; zero: for ever.
	Keep time.Duration
	// Upgrade hashes what older versions kept in the database unhashed, in the transaction
	// that stores the key of the hash. Nil: nothing.
	Upgrade func(ctx context.Context, tx pgx.Tx, hash func([]byte) []byte) error
	// Follow takes in what the log says of keys, if that was not done within the last
	// moments. Nil: it is called by nobody.
	Follow func(ctx context.Context, within time.Duration) error
}

// Keyring has the data keys that the content of the log is encrypted with: of each event's
// subjects or, where it has none, of the period. The database has them wrapped by the
// keyset. Safe for concurrent use.
type Keyring struct {
	KeyringConfig
	fates envelope.Fates

	opening sync.Mutex
	opened  atomic.Pointer[opened] // nil: not opened yet, or the key of the hashes has to be read again
	mu      sync.Mutex
	made    cache[envelope.Owner, keptKey]
	fresh   []*madeKey                      // in made, the oldest first: not known to be stored
	past    cache[envelope.KeyID, *madeKey] // for what was in clear, by owner and period: nothing may open by those of the erased
	read    cache[envelope.KeyID, *envelope.Key]
	lost    int // how often the log has lost its tail
}

// opened is what no key is made without.
type opened struct {
	vault  *Vault
	hasher *hasher // of the subjects' ids
}

// keptKey is a key that this process made, with which it encrypts. Each patient has one, and the
// collector would go through all of them: so there is nothing to follow once a patient's is stored.
type keptKey struct {
	secret [32]byte
	until  uint32
	number int64
	born   int64               // see envelope.KeyOf
	row    *eventstore.DataKey // what an append stores of it; nil: it is stored
	stored int64               // the log's generation in which it was: in another one the database may have lost it
	shared *envelope.Key       // the key itself, of a period; nil: it is made for each event
}

// madeKey is a key, and what is stored of it.
type madeKey struct {
	key     envelope.Key
	row     eventstore.DataKey
	wrapped [72]byte // room for it
}

// keptKeys of a hundred thousand subjects and more are kept by each cache, which takes 100 to
// 200 bytes for one.
const keptKeys = 1 << 17

// NewKeyring returns a keyring of the database.
func NewKeyring(config KeyringConfig) *Keyring {
	return &Keyring{KeyringConfig: config, made: newCache[envelope.Owner, keptKey](keptKeys), past: newCache[envelope.KeyID, *madeKey](keptKeys), read: newCache[envelope.KeyID, *envelope.Key](keptKeys)}
}

// For returns the keys for an event of the type with the data, which may have none. The unit, which
// appends it in its generation, stores them.
func (k *Keyring) For(ctx context.Context, unit *eventstore.Unit, eventType domain.EventType, data []byte) (envelope.Keys, error) {
	vault, hasher, err := k.ready(ctx)
	if err != nil {
		return nil, err
	}
	var one [1]envelope.Owner
	owners := k.ownersOf(one[:0], hasher, eventType, data)
	if len(owners) == 0 {
		owners = append(owners, envelope.OfPeriods)
	}
	keys := make(envelope.Keys, len(owners))
	for i, owner := range owners {
		key, row, err := k.keyOf(vault, owner, unit.Generation)
		if err != nil {
			return nil, err
		}
		if keys[i] = key; row != nil {
			unit.Keys = append(unit.Keys, row)
		}
	}
	if len(keys) > 1 {
		keys = envelope.Join(keys)
	}
	return keys, nil
}

// ForPast returns keys for what was recorded in clear at the time and tells of the owners, and
// what is to be stored of them. What is destroyed by now is not stored, so the content is erased.
func (k *Keyring) ForPast(ctx context.Context, owners []envelope.Owner, at time.Time) (keys envelope.Keys, rows []*eventstore.DataKey, err error) {
	vault, _, err := k.ready(ctx)
	if err != nil {
		return nil, nil, err
	}
	if len(owners) == 0 {
		owners = []envelope.Owner{envelope.OfPeriods}
	}
	for _, owner := range owners {
		id := envelope.KeyID{Owner: owner, Until: k.periodOf(at.Unix())}
		k.mu.Lock()
		made, ok := k.past.get(id)
		k.mu.Unlock()
		if !ok {
			if made, err = k.makeKey(vault, owner, id.Until, k.fates.Count()); err != nil {
				return nil, nil, err
			}
			k.mu.Lock()
			k.past.put(id, made)
			k.mu.Unlock()
		}
		keys = append(keys, &made.key)
		if erased, expired := k.fates.Fate(id); erased == 0 && !expired {
			rows = append(rows, &made.row)
		}
	}
	return envelope.Join(keys), rows, nil
}

// Owners returns the subjects of an event of the type with the data.
func (k *Keyring) Owners(ctx context.Context, eventType domain.EventType, data []byte) ([]envelope.Owner, error) {
	_, hasher, err := k.ready(ctx)
	if err != nil {
		return nil, err
	}
	return k.ownersOf(nil, hasher, eventType, data), nil
}

func (k *Keyring) ownersOf(owners []envelope.Owner, hasher *hasher, eventType domain.EventType, data []byte) []envelope.Owner {
	for _, id := range k.Paths(eventType).In(data) {
		owners = append(owners, hasher.owner(id))
	}
	return owners
}

// Tells reports whether an event of the type with the data tells of the subject.
func (k *Keyring) Tells(eventType domain.EventType, data []byte, subject string) bool {
	return slices.Contains(k.Paths(eventType).In(data), subject)
}

// Owner returns whose keys encrypt what tells of the subject.
func (k *Keyring) Owner(ctx context.Context, subject string) (envelope.Owner, error) {
	_, hasher, err := k.ready(ctx)
	if err != nil {
		return envelope.Owner{}, err
	}
	return hasher.owner(subject), nil
}

// Hash returns the hash of what may be guessed, under a key of the database.
func (k *Keyring) Hash(ctx context.Context, text []byte) ([]byte, error) {
	_, hasher, err := k.ready(ctx)
	if err != nil {
		return nil, err
	}
	return hasher.text(text), nil
}

// hasher hashes under a key. Its hashes and their memory are used again: to make one costs more
// than to hash.
type hasher struct{ pool sync.Pool }

type hashing struct {
	hash.Hash
	text, sum []byte
}

func newHasher(key []byte) *hasher {
	return &hasher{sync.Pool{New: func() any { return &hashing{Hash: hmac.New(sha256.New, key)} }}}
}

// text returns the hash of a text, which is none of an owner.
func (h *hasher) text(text []byte) []byte { return h.appendSum(nil, "text\x00", string(text)) }

// owner returns whose keys encrypt what tells of the subject.
func (h *hasher) owner(subject string) (owner envelope.Owner) {
	var sum [sha256.Size]byte
	copy(owner[:], h.appendSum(sum[:0], "subject\x00", subject))
	return owner
}

func (h *hasher) appendSum(dst []byte, prefix, text string) []byte {
	keyed := h.pool.Get().(*hashing)
	defer h.pool.Put(keyed)
	keyed.text = append(append(keyed.text[:0], prefix...), text...)
	keyed.Reset()
	keyed.Write(keyed.text)
	keyed.sum = keyed.Sum(keyed.sum[:0])
	return append(dst, keyed.sum...)
}

// until returns when the present period ends. Content is readable for up to a period longer
// than it is to be kept, so periods are short beside that.
func (k *Keyring) until() uint32 {
	return k.periodOf(max(time.Now().Unix(), int64(k.fates.ExpiredUntil()))) // a clock may be behind
}

// periodOf returns when the period of the time, in seconds since 1970, ends.
func (k *Keyring) periodOf(at int64) uint32 {
	const usual, share = 30 * 24 * time.Hour, 50
	period := int64(usual / time.Second)
	if k.Keep > 0 {
		period = min(period, max(1, int64(k.Keep/share/time.Second)))
	}
	return uint32(min((at/period+1)*period, math.MaxUint32))
}

// keyOf returns the owner's key of the present period, a new one when this process has none, and
// what is stored of it, if it is not yet in the log's generation.
func (k *Keyring) keyOf(vault *Vault, owner envelope.Owner, generation int64) (*envelope.Key, *eventstore.DataKey, error) {
	until := k.until()
	k.mu.Lock()
	kept, ok := k.made.get(owner)
	lost, count := k.lost, k.fates.Count()
	k.mu.Unlock()
	var key *envelope.Key
	if ok {
		key = kept.key(owner, &k.fates)
	}
	if !ok || key.Until != until || key.Destroyed() || !kept.serves(generation) {
		made, err := k.makeKey(vault, owner, until, count)
		if err != nil {
			return nil, nil, err
		}
		kept = k.keep(made, count, generation, lost)
		key = kept.key(owner, &k.fates)
	}
	return key, kept.row, nil
}

// keep keeps a new key, and returns the key to use: another caller may have kept one.
func (k *Keyring) keep(made *madeKey, count, generation int64, lost int) keptKey {
	key := &made.key
	kept := keptKey{secret: [32]byte(key.Secret()), until: key.Until, number: key.Number, born: count, row: &made.row}
	if key.Owner == envelope.OfPeriods {
		kept.shared = key
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if others, ok := k.made.get(key.Owner); ok && others.until == key.Until && others.serves(generation) && !others.key(key.Owner, &k.fates).Destroyed() {
		return others
	}
	if k.lost == lost && !key.Destroyed() {
		k.made.put(key.Owner, kept)
		k.fresh = append(k.fresh, made)
		k.letGoOfStored()
	}
	return kept
}

// letGoOfStored lets go of what was to be stored of keys and is. What no append has stored by the time
// that many others were made is kept with its key.
func (k *Keyring) letGoOfStored() {
	const many = 1 << 12
	for len(k.fresh) > 0 && (k.fresh[0].row.StoredIn() > 0 || len(k.fresh) > many) {
		made := k.fresh[0]
		if kept, ok := k.made.get(made.key.Owner); ok && kept.row == &made.row && made.row.StoredIn() > 0 {
			kept.row, kept.stored = nil, made.row.StoredIn()
			k.made.put(made.key.Owner, kept)
		}
		k.fresh[0] = nil
		k.fresh = k.fresh[1:]
	}
}

// serves reports whether the database has the key in the log's generation, or an append that uses it
// stores it.
func (kept *keptKey) serves(generation int64) bool {
	return kept.row != nil || kept.stored == generation
}

// key returns the key, which is the owner's.
func (kept *keptKey) key(owner envelope.Owner, fates *envelope.Fates) *envelope.Key {
	if kept.shared != nil {
		return kept.shared
	}
	key, err := envelope.KeyOf(envelope.KeyID{Owner: owner, Until: kept.until, Number: kept.number}, kept.secret[:], fates, kept.born)
	if err != nil {
		panic("vault: " + err.Error()) // the length is right
	}
	return &key
}

// makeKey makes a random key of the owner, and what the append stores of it.
func (k *Keyring) makeKey(vault *Vault, owner envelope.Owner, until uint32, count int64) (*madeKey, error) {
	const numberBytes, secretBytes = 8, 32
	var random [numberBytes + secretBytes]byte
	_, _ = rand.Read(random[:]) // it never fails
	id := envelope.KeyID{Owner: owner, Until: until, Number: int64(binary.BigEndian.Uint64(random[:]) >> 1)}
	key, err := envelope.KeyOf(id, random[numberBytes:], &k.fates, count)
	if err != nil {
		return nil, err
	}
	wrapped, err := vault.wrap(id, key.Secret())
	if err != nil {
		return nil, err
	}
	made := &madeKey{key: key, row: eventstore.DataKey{Owner: owner, Until: int64(until), Number: id.Number}}
	made.row.Wrapped = append(made.wrapped[:0], wrapped...)
	return made, nil
}

// Ready opens the keyset, and reads the key of the hashes.
func (k *Keyring) Ready(ctx context.Context) error {
	_, _, err := k.ready(ctx)
	return err
}

// Decrypt decrypts a secret of a webhook, as Vault.Decrypt does.
func (k *Keyring) Decrypt(webhook domain.WebhookID, field string, encrypted domain.Sealed) (string, error) {
	vault, _, err := k.ready(context.Background())
	if err != nil {
		return "", err
	}
	return vault.Decrypt(webhook, field, encrypted)
}

func (k *Keyring) ready(ctx context.Context) (*Vault, *hasher, error) {
	if now := k.opened.Load(); now != nil {
		return now.vault, now.hasher, nil
	}
	k.opening.Lock()
	defer k.opening.Unlock()
	vault, err := k.KeyringConfig.Open(ctx)
	if err != nil {
		return nil, nil, err
	}
	k.mu.Lock()
	lost := k.lost
	k.mu.Unlock()
	key, err := k.readHashKey(ctx, vault)
	if err != nil {
		return nil, nil, fmt.Errorf("read the key of the subjects' hashes: %w", err)
	}
	now := &opened{vault, newHasher(key)}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lost == lost {
		k.opened.Store(now)
	}
	return now.vault, now.hasher, nil
}

// readHashKey reads the key of the hashes. The first process makes it, while nothing is
// appended.
func (k *Keyring) readHashKey(ctx context.Context, vault *Vault) ([]byte, error) {
	const own = `SELECT wrapped FROM medilab.data_keys WHERE owner = '00000000-0000-0000-0000-000000000000' AND number = 0`
	var wrapped []byte
	err := k.Pool.QueryRow(ctx, own).Scan(&wrapped)
	if errors.Is(err, pgx.ErrNoRows) {
		if err = pgx.BeginFunc(ctx, k.Pool, func(tx pgx.Tx) error { return k.makeHashKey(ctx, tx, vault) }); err == nil {
			err = k.Pool.QueryRow(ctx, own).Scan(&wrapped)
		}
	}
	if err != nil {
		return nil, err
	}
	return vault.unwrap(envelope.KeyID{}, wrapped)
}

func (k *Keyring) makeHashKey(ctx context.Context, tx pgx.Tx, vault *Vault) error {
	secret := make([]byte, sha256.Size)
	_, _ = rand.Read(secret) // it never fails
	wrapped, err := vault.wrap(envelope.KeyID{}, secret)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `SELECT FROM medilab.log_head FOR UPDATE`); err != nil {
		return err
	}
	made, err := tx.Exec(ctx, `INSERT INTO medilab.data_keys (owner, number, until, wrapped)
		VALUES ('00000000-0000-0000-0000-000000000000', 0, 0, $1) ON CONFLICT DO NOTHING`, wrapped)
	if err != nil || made.RowsAffected() == 0 || k.Upgrade == nil {
		return err
	}
	return k.Upgrade(ctx, tx, newHasher(secret).text)
}

// Erased takes in that the keys of the owner are destroyed, by an event at the position.
func (k *Keyring) Erased(owner envelope.Owner, position eventstore.Position) {
	if k.fates.Erase(owner, int64(position)) {
		k.dropDestroyed(&owner)
	}
}

// Expired takes in that the keys of periods that ended by then are destroyed.
func (k *Keyring) Expired(until time.Time) {
	k.fates.Expire(uint32(until.Unix()))
	k.dropDestroyed(nil)
}

// dropDestroyed makes the caches forget what is destroyed, of the owner if it is not nil.
func (k *Keyring) dropDestroyed(owner *envelope.Owner) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.made.drop(owner, func(owner envelope.Owner, kept keptKey) bool { return kept.key(owner, &k.fates).Destroyed() })
	k.read.drop(nil, func(_ envelope.KeyID, key *envelope.Key) bool { return key.Destroyed() })
	k.fresh = slices.DeleteFunc(k.fresh, func(made *madeKey) bool { return made.key.Destroyed() })
}

// ForgetAll forgets all keys: the log may have lost them with its tail.
func (k *Keyring) ForgetAll() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lost++
	k.opened.Store(nil)
	k.made.clear()
	k.fresh = nil
	k.past.clear()
	k.read.clear()
}

// wrap encrypts a data key with the primary key of the keyset. Every new patient takes one, so
// the file is not looked at each time.
func (v *Vault) wrap(id envelope.KeyID, secret []byte) ([]byte, error) {
	const within = 100 * time.Millisecond
	v.mu.RLock()
	checked := v.checked
	v.mu.RUnlock()
	if time.Since(checked) > within {
		v.refresh()
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	wrapped, err := v.keys.cipher.Encrypt(secret, wrappedFor(id))
	return wrapped, eventstore.Doing("wrap a data key", err)
}

// unwrap is the reverse of wrap.
func (v *Vault) unwrap(id envelope.KeyID, wrapped []byte) ([]byte, error) {
	secret, err := v.decrypt(wrapped, wrappedFor(id))
	if err != nil {
		return nil, fmt.Errorf("unwrap a data key: %w", ErrDecrypt)
	}
	return secret, nil
}

func wrappedFor(id envelope.KeyID) []byte { return id.AppendID([]byte("data key ")) }
