package domain

import "time"

// LogArchived records that the entries of the clinic's events and deliveries in a range of
// the log, which nothing needs any more, are in an archive, from which they can be restored,
// and leave the database. It stands in the log's own stream (eventstore.ArchiveStream),
// whose entries eventstore reads too: see eventstore.Cut.
type LogArchived struct {
	First      int64     `json:"first"`       // position of the range
	ArchivedTo int64     `json:"archived_to"` // its last
	To         time.Time `json:"to"`          // when that was recorded
	SealBefore string    `json:"seal_before"` // hex, of the log before the range
	Seal       string    `json:"seal"`        // hex, of the log up to its end
	Entries    int64     `json:"entries"`     // of the range
	Earlier    int64     `json:"earlier"`     // that an archive before had to leave
	Kept       string    `json:"kept"`        // SHA-256 in hex of what the database keeps up to the end
	Totals     string    `json:"totals"`      // checksum of the totals up to the end
	Manifest   string    `json:"manifest"`    // JWS of what the archive holds
}

// LogRestored records that the newest archive is in the database again.
type LogRestored struct {
	Restored   int64 `json:"restored"`    // up to which position
	ArchivedTo int64 `json:"archived_to"` // the end of the archive before; 0: there is none
}

func (LogArchived) ChangeType() string { return "log.archived" }
func (LogRestored) ChangeType() string { return "log.restored" }

var _, _ = register(LogArchived{}), register(LogRestored{})
