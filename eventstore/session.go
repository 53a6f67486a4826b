package eventstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// SchemaVersion is the schema that this version of the program works on: the number of
// the newest migration. The database refuses appends and leases of a program that does not
// survive its migrations.
const SchemaVersion = 54

// sessionSettings hold on every connection, whatever the server, the database or the role
// sets. They are set by SET: a pooler refuses most start-up parameters, or ignores them.
var sessionSettings = [][2]string{
	{"application_name", "medilab-webhooks"},
	{"medilab.schema_version", strconv.Itoa(SchemaVersion)},
	// An append that was answered survives a crash.
	{"synchronous_commit", "on"},
	// A node that freezes in a transaction must not hold its locks.
	{"idle_in_transaction_session_timeout", "10s"},
	{"idle_session_timeout", "0"}, // a connection that listens is idle
	{"statement_timeout", "0"},
	{"lock_timeout", "0"},
	{"transaction_timeout", "0"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_deferrable", "off"},
	{"jit", "off"},
	// What SQL means, and how values and definitions are written.
	{"client_encoding", "UTF8"},
	{"TimeZone", "UTC"},
	{"DateStyle", "ISO, MDY"},
	{"IntervalStyle", "postgres"},
	{"bytea_output", "hex"},
	{"extra_float_digits", "1"},
	{"standard_conforming_strings", "on"},
	{"quote_all_identifiers", "off"},
	{"transform_null_equals", "off"},
	{"array_nulls", "on"},
	{"plpgsql.extra_errors", "none"},
	{"plpgsql.variable_conflict", "error"},
}

// Settings that this version of Postgres does not know are left out, and those that hold
// already, as only a superuser may set some of them.
var setSQL, checkSQL = func() (set, check string) {
	var wanted []string
	for _, s := range sessionSettings {
		wanted = append(wanted, "('"+s[0]+"','"+s[1]+"')")
	}
	from := ` FROM (VALUES ` + strings.Join(wanted, ",") + `) AS wanted (name, value)`
	return `SELECT set_config(name, value, false)` + from + ` WHERE lower(current_setting(name, true)) <> lower(value) OR name LIKE 'medilab.%'`,
		`SELECT pg_backend_pid(), string_agg(name, ', ') FILTER (WHERE lower(current_setting(name, true)) <> lower(value))` + from
}()

// ErrPooler says that a pooler stands before the database that does not keep sessions.
var ErrPooler = errors.New("a connection pooler hands the statements of one session to several server connections: it must be in session mode (pool_mode = session)")

// codeDuplicateStatement says that a prepared statement of this name is there already.
const codeDuplicateStatement = "42P05"

// serverOf keeps the process id of a connection's server in the connection.
const serverOf = "medilab server"

// prepareSession makes the settings, and verifies by another statement that they hold.
func prepareSession(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.PgConn().Exec(ctx, setSQL).ReadAll(); err != nil {
		return fmt.Errorf("prepare a session: %w", err)
	}
	results, err := conn.PgConn().Exec(ctx, checkSQL).ReadAll()
	if err != nil {
		return fmt.Errorf("prepare a session: %w", err)
	}
	row := results[0].Rows[0]
	if wrong := string(row[1]); wrong != "" {
		return fmt.Errorf("these settings do not stay as they are set: %s: %w", wrong, ErrPooler)
	}
	conn.PgConn().CustomData()[serverOf] = string(row[0])
	useArrays(conn.TypeMap())
	return nil
}

// checkPooler returns ErrPooler if a pooler before the database does not keep sessions. It
// is the listening of an idle session that such a one cannot keep, whatever it does with
// the rest: several settings and statements in a row may meet the same server by chance.
func checkPooler(ctx context.Context, pool *pgxpool.Pool) error {
	const connectPatience, patience = 30 * time.Second, 10 * time.Second
	listening, err := pool.Acquire(ctx)
	if HasCode(err, codeDuplicateStatement) {
		return ErrPooler // another client prepared it on the same server
	}
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer listening.Release()
	server := listening.Conn().PgConn()
	if server.CustomData()[serverOf] == strconv.FormatUint(uint64(server.PID()), 10) {
		return nil // no pooler: it would give its clients ids of its own
	}
	channel := "medilab_session_" + strconv.FormatUint(uint64(server.PID()), 10)
	if _, err := listening.Exec(ctx, `LISTEN `+channel); err != nil {
		return fmt.Errorf("check the pooler: %w", err)
	}
	other, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	if _, err := pool.Exec(other, `SELECT pg_notify($1, '')`, channel); err != nil {
		return fmt.Errorf("check the pooler by a second connection: %w", errors.Join(err, ErrPooler))
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := listening.Conn().WaitForNotification(waiting); err != nil {
		return errors.Join(ErrPooler, ctx.Err())
	}
	_, err = listening.Exec(ctx, `UNLISTEN `+channel)
	return err
}
