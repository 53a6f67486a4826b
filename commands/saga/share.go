package saga

import (
	"context"
	"time"
)

const shareEvery = patientFor / 4

// share gives back to the table what waits here for longer than patientFor while
// other nodes live, until ctx ends: they may be free for it, and this node is not.
func (s *session) share(ctx context.Context) {
	ticker := time.NewTicker(shareEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			if !s.node.Alone() && s.node.Valid() {
				s.putBack(func() []*delivery { return s.lanes.overdue(now) })
			}
		}
	}
}
