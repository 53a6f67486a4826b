package eventstore

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Entries of versions that did not encrypt can be replaced by encrypted ones, in steps, each
// on record. Their seals stay, as what follows builds on them; medilab.resealed has, for each
// batch, a seal of the entries as they are now, which builds on both seals before. The record
// has the last of these, so that what is replaced is sealed by the log again.

// EncryptionStream records what was replaced.
const EncryptionStream = "encryption-00000000-0000-0000-0000-000000000000"

// Encryption is how far the entries in clear are encrypted.
type Encryption struct {
	Until   Position // they are up to there; 0: there are none
	Done    Position
	Version int64 // of EncryptionStream
}

// Encryption returns how far the entries in clear are encrypted.
func (l *Log) Encryption(ctx context.Context) (e Encryption, err error) {
	err = l.pool.QueryRow(ctx, `SELECT coalesce(max(position), 0), coalesce(max(encrypted_to), 0),
			coalesce((SELECT version FROM medilab.events WHERE stream = $1 ORDER BY version DESC LIMIT 1), 0)
		FROM medilab.unencrypted`, EncryptionStream).Scan(&e.Until, &e.Done, &e.Version)
	return e, Doing("read what is in clear", err)
}

// Replacement is a step: With replaces the entries up to Last in an append, which records Seal.
type Replacement struct {
	Last    Position
	Seal    Seal
	Entries int
	With    Statement
}

// IsArchiving reports whether a replacement was refused because an archive command is running.
func IsArchiving(err error) bool { return HasCode(err, "MA003") }

// Replace reads the batches of about size entries that follow what is encrypted, and lets
// encrypt change the data of those in clear. It fails if they are not what was sealed.
func (l *Log) Replace(ctx context.Context, e Encryption, size int, encrypt func(events []Event) error) (r Replacement, err error) {
	seals, err := l.Seals(ctx, e.Done, size)
	if err != nil {
		return r, err
	}
	n := 1
	for n < len(seals) && seals[n].Last <= min(e.Until, e.Done+Position(size)) {
		n++
	}
	if seals = seals[:min(n, len(seals))]; len(seals) == 0 {
		return r, &GapError{Position: e.Done + 1}
	}
	r.Last = seals[len(seals)-1].Last
	var events []Event
	if err := l.Scan(ctx, e.Done, r.Last, size, func(page []Event) error { events = append(events, page...); return nil }); err != nil {
		return r, err
	}
	if err := l.Open(ctx, events); err != nil { // some may be encrypted
		return r, err
	}
	was, err := l.chainAfter(ctx, e.Done)
	if err != nil {
		return r, err
	}
	is := *was
	if err := was.addAll(events, seals, was.Close); err != nil {
		return r, fmt.Errorf("%w; see audit verify", err)
	}
	former := make([][]byte, len(events))
	for i := range events {
		former[i] = events[i].Data
	}
	if err := encrypt(events); err != nil {
		return r, err
	}
	var batches, positions []int64
	var resealed, contents [][]byte
	for i := range events {
		if !bytes.Equal(events[i].Data, former[i]) {
			positions, contents = append(positions, int64(events[i].Position)), append(contents, events[i].Data)
		}
	}
	is.digest = newDigest()
	err = is.addAll(events, seals, func(s SealRow) error {
		r.Seal = is.reseal(s)
		batches, resealed = append(batches, int64(s.Last)), append(resealed, r.Seal)
		return nil
	})
	r.Entries = len(positions)
	r.With = Statement{SQL: `SELECT medilab.encrypt_entries($1, $2, $3, $4, $5)`, Args: []any{e.Done, batches, resealed, positions, contents}}
	return r, err
}

// chainAfter begins a chain behind the batch that ends at the position.
func (l *Log) chainAfter(ctx context.Context, last Position) (*Chain, error) {
	if last == 0 {
		return NewChain(1, Seal{}, nil), nil
	}
	seal, err := l.SealOf(ctx, last)
	if err != nil {
		return nil, err
	}
	resealed, err := l.ResealedAt(ctx, last)
	return NewChain(last+1, seal, resealed), err
}

// ResealedAt returns the seal of encrypted entries at the end of a batch; nil: there is none.
func (l *Log) ResealedAt(ctx context.Context, last Position) (Seal, error) {
	return resealedAt(ctx, l.pool, last)
}

func resealedAt(ctx context.Context, db querier, last Position) (Seal, error) {
	rows, _ := db.Query(ctx, `SELECT (SELECT seal FROM medilab.resealed WHERE last_position = $1)`, last)
	seal, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[Seal])
	return seal, Doing("read seals", err)
}

// encrypted reads the record of what was replaced, if there is one.
func (v *verifier) encrypted(ctx context.Context) error {
	rows, _ := v.db.Query(ctx, `SELECT data FROM medilab.events WHERE stream = $1 ORDER BY version DESC LIMIT 1`, EncryptionStream)
	var data []byte
	_, err := pgx.ForEachRow(rows, []any{&data}, func() error { return json.Unmarshal(data, &v.replaced) })
	return Doing("verify the log", err)
}

// checkRecord compares a batch's seal of encrypted entries with the record of them.
func (v *verifier) checkRecord(s SealRow) {
	switch recorded := s.Last <= v.replaced.To; {
	case recorded != (s.Resealed != nil):
		v.damage(FlawSeal, s.First, "", "positions %d to %d: that entries were encrypted is on record up to %d", s.First, s.Last, v.replaced.To)
	case s.Last == v.replaced.To && !bytes.Equal(s.Resealed, v.replaced.Seal):
		v.damage(FlawSeal, s.First, "", "the entries up to %d are not those that were encrypted", s.Last)
	}
}
