package domain

import "github.com/google/uuid"

// PayloadsEncrypted records that entries of versions that did not encrypt were replaced by
// encrypted ones. It stands in the log's own stream (eventstore.EncryptionStream).
type PayloadsEncrypted struct {
	EncryptedTo int64 `json:"encrypted_to"` // position, from the end of the record before
	Entries     int   `json:"entries"`      // that were replaced
	// Seal, in hex, seals what there is now up to EncryptedTo.
	Seal string `json:"seal"`
	// Subjects are those that the replaced events, and tests, tell of.
	Subjects []SubjectEntries `json:"subjects,omitempty"`
}

// SubjectEntries are positions of events, and tests, that tell of a subject.
type SubjectEntries struct {
	Owner     uuid.UUID `json:"owner"`
	Positions []int64   `json:"positions"`
}

func (PayloadsEncrypted) ChangeType() string { return "payloads.encrypted" }

var _ = register(PayloadsEncrypted{})
