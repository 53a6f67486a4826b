package commands

import (
	"context"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
)

// RecordReading appends that the caller is about to be shown payloads. They must not leave
// unless it returns nil.
func (c *Commands) RecordReading(ctx context.Context, caller Caller, read domain.DataRead) error {
	read.Actor = caller.Actor
	if read.IDs == nil {
		read.IDs = []string{}
	}
	_, err := c.begin(ctx, caller, domain.AccessID(uuid.Must(uuid.NewV7())).Stream(), read)
	return Failed("record a reading", err)
}
