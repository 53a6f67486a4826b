package postgres

import (
	"context"
	"time"
)

// Restarts are tried after leastPause at first, and every mostPause in the end.
const (
	leastPause = time.Second
	mostPause  = 10 * time.Second
)

// Supervise restarts the server whenever it ends by itself, until ctx ends: Postgres does so when
// the disk of its write-ahead log is full, and a machine short of memory may kill it. The URL stays
// the same, so clients only need to reconnect, and nothing committed is lost. Supervise never gives
// up, as only an operator can free space. End it before Stop.
func (s *Server) Supervise(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.Done():
		}
		s.log.Error("the database server ended by itself, starting it again; postgres.log in the data folder says why")
		s.restart(ctx)
	}
}

func (s *Server) restart(ctx context.Context) {
	logged := ""
	for wait := leastPause; ; wait = min(2*wait, mostPause) {
		if pause(ctx, wait) != nil {
			return
		}
		child, err := s.cluster.run(ctx)
		if err == nil {
			s.mu.Lock()
			s.child = child
			s.mu.Unlock()
			s.log.Info("the database server is back", "process", child.cmd.Process.Pid)
			return
		}
		if text := oneLine(err); ctx.Err() == nil && text != logged { // once: it may go on for long
			s.log.Error("the database server does not start, trying again until it does", "error", text)
			logged = text
		}
	}
}
