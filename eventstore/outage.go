package eventstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
)

// IsOutage reports whether err says that the log or its database cannot serve now, so
// that the same may go well later. What the database refused is no outage, unless it is to connect.
func IsOutage(err error) bool {
	var refused *pgconn.PgError
	var connect *pgconn.ConnectError
	var network net.Error // that of a file is one, too
	var file *fs.PathError
	switch {
	case errors.Is(err, ErrBusy), errors.Is(err, ErrUnavailable), errors.Is(err, ErrClosed), errors.Is(err, ErrTailLost):
		return true
	case errors.As(err, &connect):
		return true
	case errors.As(err, &refused):
		return cannotServe(refused)
	case errors.As(err, &file):
		return false
	}
	return errors.As(err, &network) || pgconn.Timeout(err) || pgconn.SafeToRetry(err) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// IsRefusal reports whether the database refused for good: the same goes no better later.
func IsRefusal(err error) bool {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	return ok && !cannotServe(refused)
}

// cannotServe reports, by the class of its SQLSTATE, a server that cannot serve now.
func cannotServe(e *pgconn.PgError) bool {
	switch e.Code[:min(2, len(e.Code))] {
	case "08", "25", "40", "53", "55", "57", "58", "XX": // connection, role, rollback, resources, locks, operator, system, internal
		return true
	}
	return false
}

// HasCode reports whether err is the database's refusal with one of the SQLSTATEs.
func HasCode(err error, codes ...string) bool {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains(codes, refused.Code)
}

// Doing returns err with what was being done, nil for nil.
func Doing(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
