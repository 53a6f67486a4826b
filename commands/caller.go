package commands

import (
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Caller is who asks; it stands in the metadata of what follows.
type Caller struct {
	// Actor identifies the caller: no two callers have the same. Each kind of caller has
	// a prefix of its own.
	Actor     string
	RequestID string

	// Versions before named a token, which existed since a time, by its name alone.
	formerly string
	since    time.Time
}

// ActorAdmin is the actor of the token that the environment sets.
const ActorAdmin = "admin"

// actorPrefixes are those of all callers but tokens of versions before.
var actorPrefixes = []string{"token:", "jwt:", "source:", "system:", "command line (", databaseRole}

const databaseRole = "database role "

// TokenCaller returns the caller that has the token; the zero Caller for no token.
func TokenCaller(t domain.Token) Caller {
	if t.Version == 0 {
		return Caller{}
	}
	c := Caller{Actor: "token:" + t.ID.String() + " (" + t.Name + ")"}
	foreign := func(prefix string) bool { return strings.HasPrefix(t.Name, prefix) }
	if t.Name != ActorAdmin && !slices.ContainsFunc(actorPrefixes, foreign) {
		c.formerly, c.since = t.Name, t.CreatedAt
	}
	return c
}

// RoleCaller returns the caller that logs in to the database as the role.
func RoleCaller(role string) Caller { return Caller{Actor: databaseRole + role} }

// Appended reports whether the event was appended for the caller.
func (c Caller) Appended(e eventstore.Event) bool {
	by, err := e.ReadMetadata()
	return err == nil && (by.Actor == c.Actor || c.formerly != "" && by.Actor == c.formerly && !e.RecordedAt.Before(c.since))
}

// ownIDs is the namespace of the ids that OwnID makes.
var ownIDs = uuid.MustParse("8f0b2a54-3c1e-5d0a-9a67-2f6c0e5b9d13")

// OwnID returns the id that the caller's event gets when another caller has taken id. It is
// the same each time, so that a repeated request finds its event.
func (c Caller) OwnID(id domain.EventID) domain.EventID {
	return domain.EventID(uuid.NewSHA1(ownIDs, append(id[:], c.Actor...)))
}

func (c Caller) metadata() eventstore.Metadata {
	return eventstore.Metadata{Actor: c.Actor, RequestID: c.RequestID}
}
