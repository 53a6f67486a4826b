package eventstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// startPooler runs a PgBouncer before the database until the test ends, and returns the
// URL by which it is reached.
func startPooler(t *testing.T, database, mode string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		t.Skip("there is no pgbouncer: apt-get install pgbouncer")
	}
	config, err := pgx.ParseConfig(database)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pooler-") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	ini := filepath.Join(dir, "pgbouncer.ini")
	text := fmt.Sprintf("[databases]\nclinic = host=127.0.0.1 port=%d dbname='%s' user='%s' password='%s'\n[pgbouncer]\nauth_type = any\npool_mode = %s\n"+
		"listen_port = 6432\nlisten_addr =\nunix_socket_dir = %s\n", bridge(t, config), config.Database, config.User, config.Password, mode, dir)
	if err := os.WriteFile(ini, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, ini)
	if os.Geteuid() == 0 { // it refuses to be root
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		for _, path := range []string{dir, ini} {
			if err := os.Chown(path, nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
	}
	output, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(output)
	said := ""
	for lines.Scan() && !strings.Contains(lines.Text(), "process up") {
		said += lines.Text() + "\n"
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if lines.Err() != nil || !strings.Contains(lines.Text(), "process up") {
		t.Fatalf("pgbouncer did not start: %s", said)
	}
	go func() {
		for lines.Scan() { // nothing may block it
		}
	}()
	query := url.Values{"host": {dir}, "port": {"6432"}, "sslmode": {"disable"}}
	return "postgres://anybody@/clinic?" + query.Encode()
}

// bridge is a loopback port that leads to the database, whose socket is this user's alone.
func bridge(t *testing.T, config *pgx.ConnConfig) (port int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	network, address := pgconn.NetworkAddress(config.Host, config.Port)
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close() //nolint:errcheck // the other side notices
				server, err := net.Dial(network, address)
				if err != nil {
					return
				}
				go func() {
					_, _ = io.Copy(server, client)
					_ = server.Close()
				}()
				_, _ = io.Copy(client, server)
			}()
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port
}

// An ordinary role may not set what it need not: settings of plpgsql are there once a server
// has run a function, as behind a pooler.
func TestOrdinaryRole(t *testing.T) {
	database := testdb.New(t)
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context()) //nolint:errcheck // nothing is lost with it
	name := conn.Config().Database
	role := "ordinary_of_" + name
	for _, statement := range []string{`CREATE ROLE %[1]s LOGIN PASSWORD 'secret'`, `GRANT USAGE ON SCHEMA medilab TO %[1]s`, `ALTER DATABASE %[2]s SET session_preload_libraries = 'plpgsql'`} {
		if _, err := conn.Exec(t.Context(), fmt.Sprintf(statement, role, name)); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		for _, statement := range []string{`DROP OWNED BY %s`, `DROP ROLE %s`} {
			if _, err := conn.Exec(context.WithoutCancel(t.Context()), fmt.Sprintf(statement, role)); err != nil {
				t.Error(err)
			}
		}
	}()
	as, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	as.User = url.UserPassword(role, "secret")
	pool, err := eventstore.OpenPool(t.Context(), as.String(), 2)
	if err != nil {
		t.Fatal(err)
	}
	pool.Close()
}

// Behind a pooler in session mode each connection has our settings, whatever the role's or
// the URL's.
func TestPoolerInSessionMode(t *testing.T) {
	database := testdb.New(t)
	setDefaults(t, database)
	for name, url := range map[string]string{
		"direct": database + "&default_query_exec_mode=exec&pool_max_conns=1", "simple": database + "&default_query_exec_mode=simple_protocol",
		"pooled": startPooler(t, database, "session"),
	} {
		pool, err := eventstore.OpenPool(t.Context(), url, 4)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer pool.Close()
		if mode := pool.Config().ConnConfig.DefaultQueryExecMode; mode != pgx.QueryExecModeCacheStatement {
			t.Errorf("%s: queries go by %v", name, mode)
		}
		for range 4 { // held until the end of the test, so that each is another
			conn, err := pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Release()
			var commit, timeout, isolation, strings, quotes string
			err = conn.QueryRow(t.Context(), `SELECT current_setting('synchronous_commit'), current_setting('statement_timeout'),
				current_setting('transaction_isolation'), current_setting('standard_conforming_strings'), current_setting('quote_all_identifiers')`).
				Scan(&commit, &timeout, &isolation, &strings, &quotes)
			if err != nil || commit != "on" || timeout != "0" || isolation != "read committed" || strings != "on" || quotes != "off" {
				t.Errorf("%s: %v %v %v %v %v, %v", name, commit, timeout, isolation, strings, quotes, err)
			}
		}
	}
}

func setDefaults(t *testing.T, database string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context()) //nolint:errcheck // nothing is lost with it
	for _, setting := range []string{"synchronous_commit = off", "statement_timeout = 3600000", "default_transaction_isolation = serializable", "standard_conforming_strings = off", "quote_all_identifiers = on"} {
		if _, err := conn.Exec(t.Context(), fmt.Sprintf(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %%I SET %s', current_database()); END $$`, setting)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPoolerInOtherModes(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"transaction", "statement"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			pool, err := eventstore.OpenPool(t.Context(), startPooler(t, testdb.New(t), mode), 4)
			if !errors.Is(err, eventstore.ErrPooler) {
				t.Errorf("got %v", err)
			}
			if err == nil {
				pool.Close()
			}
		})
	}
}
