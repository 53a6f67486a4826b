package commands

import (
	"context"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
)

// RecordReading appends that the caller is about to be shown payloads. They must not leave
// unless it returns nil.
func (c *Commands) RecordReading(ctx context.Context, caller Caller, read domain.DataRead) error {
	unique, err := uuid.NewV7()
	if err != nil {
		return domain.Internal("name a reading", err)
	}
	read.Actor = caller.Actor
	if read.IDs == nil {
		read.IDs = []string{}
	}
	_, err = c.append(ctx, caller, domain.AccessID(unique).Stream(), 0, read)
	return Failed("record a reading", err)
}
