package domain

import "github.com/google/uuid"

// AdminID names one use of a right that changes no webhook, event or delivery.
type AdminID uuid.UUID

// Stream names the log's stream of the use: it is alone in it.
func (id AdminID) Stream() string { return "admin-" + uuid.UUID(id).String() }

// AdminAction is what an administrator did.
type AdminAction string

// What there is to do beside changes that are events of their own.
const (
	AdminKeyStaged        AdminAction = "key.staged"
	AdminKeyRotated       AdminAction = "key.rotated"
	AdminSecretsResealed  AdminAction = "secrets.resealed"
	AdminReadModelRebuilt AdminAction = "read_model.rebuilt"
	AdminParkedRetried    AdminAction = "parked_event.retried"   // it is in the log now
	AdminParkedMended     AdminAction = "parked_event.mended"    // likewise, with other data
	AdminParkedDiscarded  AdminAction = "parked_event.discarded" // it is gone for good
)

// AdminActed records the use; who it was is in the metadata, as of every change.
type AdminActed struct {
	Action AdminAction `json:"action"`
	Detail string      `json:"detail,omitempty"` // such as the key's id; never a secret, nor an event's data
}

func (AdminActed) ChangeType() string { return "admin.acted" }

var _ = register(AdminActed{})
