// Package envelope encrypts content so that it can be forgotten: what was encrypted with a
// key is gone with the key.
package envelope

import (
	"bytes"
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
)

// Owner is whom keys belong to: a keyed hash of a subject's id, or OfPeriods.
type Owner [16]byte

// OfPeriods owns the keys of content that has no subject.
var OfPeriods = Owner{15: 1}

// KeyID names a key. An owner may have several.
type KeyID struct {
	Owner  Owner
	Until  uint32 // when its period ends, in seconds since 1970: it encrypts nothing later
	Number int64  // random
}

const (
	secretBytes = 32
	idBytes     = 16 + 4 + 8
)

// Compare puts names in an order.
func (id KeyID) Compare(other KeyID) int {
	return cmp.Or(bytes.Compare(id.Owner[:], other.Owner[:]), cmp.Compare(id.Until, other.Until), cmp.Compare(id.Number, other.Number))
}

// AppendID appends the key's name.
func (id KeyID) AppendID(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, id.Owner[:]...), id.Until)
	return binary.BigEndian.AppendUint64(dst, uint64(id.Number))
}

// destroyedAlready is below every count of fates.
const destroyedAlready = -1

// Key is a data key.
type Key struct {
	KeyID
	secret [secretBytes]byte
	cipher cipher.AEAD // nil: it is made for each use; see Prepare
	fates  *Fates
	born   int64 // the count of the fates when it was not destroyed
}

// KeyOf returns the key with the secret, or an error if that is no secret. The fates say
// when it is destroyed; it was not erased at that count of theirs.
func KeyOf(id KeyID, secret []byte, fates *Fates, born int64) (Key, error) {
	if fates != nil && id.Until <= fates.ExpiredUntil() {
		born = destroyedAlready // the database has keys for a while after they expire
	}
	k := Key{KeyID: id, fates: fates, born: born}
	if copy(k.secret[:], secret) != len(secret) || len(secret) != secretBytes {
		return k, errors.New("a data key has another length")
	}
	if id.Owner == OfPeriods {
		k.cipher = cipherOf(k.secret[:])
	}
	return k, nil
}

// Secret returns the key itself.
func (k *Key) Secret() []byte { return k.secret[:] }

// Destroyed reports whether the key is known to be destroyed.
func (k *Key) Destroyed() bool { return k.fates.destroyed(k) }

// Keys encrypt content together: without any one of them it cannot be read.
type Keys []*Key

// Join returns the keys of all, each once.
func Join(all ...Keys) Keys {
	joined := slices.Concat(all...)
	slices.SortFunc(joined, func(a, b *Key) int { return a.Compare(b.KeyID) })
	return slices.CompactFunc(joined, func(a, b *Key) bool { return a.KeyID == b.KeyID })
}

// Destroyed reports whether any of the keys is.
func (k Keys) Destroyed() bool { return slices.ContainsFunc(k, (*Key).Destroyed) }

// Prepare makes the cipher of a single key once for all its uses, before the first. It takes a kilobyte,
// too much for keys that are kept when what they encrypt is not.
func (k Keys) Prepare() {
	if len(k) == 1 && k[0].cipher == nil {
		k[0].cipher = k.aead()
	}
}

// Seal encrypts the content. The result names the keys.
func (k Keys) Seal(plain []byte) []byte {
	const most, around = 3, 12 + 16 // of the count, nonce and tag
	out := binary.AppendUvarint(make([]byte, 0, most+len(k)*idBytes+around+len(plain)), uint64(len(k)))
	for _, key := range k {
		out = key.AppendID(out)
	}
	return k.aead().Seal(out, nil, plain, out)
}

// Open decrypts what Seal returned for the same keys.
func (k Keys) Open(sealed []byte) ([]byte, error) {
	n, header, err := parse(sealed)
	if err != nil {
		return nil, err
	}
	header += n * idBytes
	return k.aead().Open(nil, nil, sealed[header:], sealed[:header])
}

// AppendIDs appends which keys Open needs, in its order.
func AppendIDs(dst []KeyID, sealed []byte) ([]KeyID, error) {
	n, at, err := parse(sealed)
	if err != nil {
		return dst, err
	}
	for range n {
		var id KeyID
		copy(id.Owner[:], sealed[at:])
		id.Until = binary.BigEndian.Uint32(sealed[at+len(Owner{}):])
		id.Number = int64(binary.BigEndian.Uint64(sealed[at+len(Owner{})+4:]))
		dst, at = append(dst, id), at+idBytes
	}
	return dst, nil
}

// parse returns how many keys the sealed content names, and from where on.
func parse(sealed []byte) (n, at int, err error) {
	count, at := binary.Uvarint(sealed)
	if at <= 0 || count == 0 || count > uint64(len(sealed)-at)/idBytes {
		return 0, 0, errors.New("encrypted content does not name its keys")
	}
	return int(count), at, nil
}

// aead encrypts with a nonce of its own each time.
func (k Keys) aead() cipher.AEAD {
	if len(k) == 1 && k[0].cipher != nil {
		return k[0].cipher
	}
	secret := k[0].secret
	if len(k) > 1 {
		all := sha256.New()
		for _, key := range k {
			all.Write(key.secret[:])
		}
		all.Sum(secret[:0])
	}
	return cipherOf(secret[:])
}

func cipherOf(secret []byte) cipher.AEAD {
	block, err := aes.NewCipher(secret)
	if err != nil {
		panic("envelope: " + err.Error()) // the length is right
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("envelope: " + err.Error())
	}
	return aead
}
