package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"
)

// Tries to start a server again come after leastPause at first, and after mostPause in the end.
const (
	leastPause = time.Second
	mostPause  = 10 * time.Second
)

// Keep starts the server again whenever it ends by itself, until ctx ends: Postgres does so when
// the disk of its write-ahead log is full, and a machine short of memory may kill it. It is at the
// same URL then, so that clients need only connect again, and has lost nothing committed. Keep tries
// for as long as it takes, as only somebody else can give it space. End it before Stop.
func (s *Server) Keep(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.Done():
		}
		s.log.Error("the database server ended by itself, starting it again; postgres.log in the data folder says why")
		s.out.close()
		s.revive(ctx)
	}
}

func (s *Server) revive(ctx context.Context) {
	said := ""
	for wait := leastPause; ; wait = min(2*wait, mostPause) {
		if pause(ctx, wait) != nil {
			return
		}
		next, err := s.again(ctx)
		if err == nil {
			s.replace(next)
			s.log.Info("the database server is back", "process", next.child.cmd.Process.Pid)
			return
		}
		if text := oneLine(err); ctx.Err() == nil && text != said { // told once: it may go on for long
			s.log.Error("the database server does not start, trying again until it does", "error", text)
			said = text
		}
	}
}

// replace goes on with another child.
func (s *Server) replace(next *Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.child, s.out, s.done = next.child, next.out, next.done
}

// sameAgain starts the server anew, at the URL that it had.
func (o Options) sameAgain(at string, a account, b binaries, password string) func(context.Context) (*Server, error) {
	return func(ctx context.Context) (*Server, error) {
		o := o
		o.freePort = func() (int, error) {
			u, err := url.Parse(at)
			if err != nil {
				return 0, fmt.Errorf("read the database's URL: %w", errors.Unwrap(err)) // its text quotes the URL
			}
			return strconv.Atoi(u.Query().Get("port"))
		}
		if err := o.takeOver(ctx, a); err != nil {
			return nil, err
		}
		return o.launchWithRetries(ctx, a, b, password)
	}
}
