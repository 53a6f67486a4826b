package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

func TestFailed(t *testing.T) {
	if err := Failed("try", nil); err != nil {
		t.Errorf("nothing failed: %v", err)
	}
	for _, c := range []struct {
		name string
		err  error
		want domain.Kind
	}{
		{"a kind stays", domain.NotFound("webhook"), domain.KindNotFound},
		{"a kind below stays", fmt.Errorf("look: %w", domain.Invalid("limit", "no")), domain.KindInvalid},
		{"lost races", &eventstore.ConflictError{Stream: "s"}, domain.KindConflict},
		{"busy", eventstore.ErrBusy, domain.KindUnavailable},
		{"out of reach", fmt.Errorf("%w: %w", eventstore.ErrUnavailable, io.EOF), domain.KindUnavailable},
		{"closed", eventstore.ErrClosed, domain.KindUnavailable},
		{"too slow", context.DeadlineExceeded, domain.KindUnavailable},
		{"gone", context.Canceled, domain.KindUnavailable},
		{"shutting down", &pgconn.PgError{Code: "57P01"}, domain.KindUnavailable},
		{"cut off", fmt.Errorf("receive message: %w", io.ErrUnexpectedEOF), domain.KindUnavailable},
		{"refused connection", &net.OpError{Op: "dial", Err: errors.New("refused")}, domain.KindUnavailable},
		{"a file that is not there", &fs.PathError{Op: "open", Path: "f", Err: syscall.ENOENT}, domain.KindInternal},
		{"our mistake", &pgconn.PgError{Code: "42601"}, domain.KindInternal},
		{"an odd code", &pgconn.PgError{}, domain.KindInternal},
		{"anything else", errors.New("broken"), domain.KindInternal},
	} {
		err := Failed("try", c.err)
		if got := domain.KindOf(err); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %v (%v), want %v", c.name, got, err, c.want)
		}
	}
}
