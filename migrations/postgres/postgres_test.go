package postgres

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/testbed"
)

// generous bounds waits that end by themselves on any machine.
const generous = 2 * time.Minute

// helperVariable turns a copy of the test binary into a process that runs the server of the data
// folder it names, until its input ends or it is killed.
const helperVariable = "MEDILAB_POSTGRES_TEST_HELPER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperVariable); dir != "" {
		os.Exit(help(dir))
	}
	code := m.Run()
	if seedDir != "" {
		if err := os.RemoveAll(seedDir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

func help(dir string) int {
	ctx, cancel := context.WithTimeout(context.Background(), generous)
	defer cancel()
	// Its log lines go to the same output, so that a test can wait for one.
	s, err := Start(ctx, Options{DataDir: dir, Disposable: true, Log: slog.New(slog.NewTextHandler(os.Stdout, nil))})
	if err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		fmt.Println("failed:", err)
	}
	if err := s.Stop(ctx); err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	return 0
}

// helper is such a process.
type helper struct {
	cmd   *exec.Cmd
	stdin io.Closer
	out   *bufio.Scanner
}

func startHelper(t *testing.T, dir string, cred *syscall.Credential) *helper {
	t.Helper()
	// Not by its path: go test builds it in a folder that another user may not enter.
	cmd := exec.Command("/proc/self/exe")
	if cred == nil {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd = exec.Command(self)
	}
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), helperVariable+"="+dir, "HOME=/nonexistent")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &helper{cmd: cmd, stdin: stdin, out: bufio.NewScanner(stdout)}
	t.Cleanup(func() { h.kill() })
	return h
}

// await reads the helper's output up to a line that holds text.
func (h *helper) await(t *testing.T, text string) {
	t.Helper()
	var said []string
	for h.out.Scan() {
		said = append(said, h.out.Text())
		if strings.Contains(h.out.Text(), text) {
			return
		}
	}
	t.Fatalf("the helper never said %q but:\n%s", text, strings.Join(said, "\n"))
}

// kill ends the helper as kill -9 does; it is called again at the end of the test.
func (h *helper) kill() {
	_ = h.cmd.Process.Kill() // fails only when it has ended
	_ = h.cmd.Wait()
}

func options(t *testing.T, dir string) Options {
	return Options{
		DataDir:    dir,
		Disposable: true,
		Log:        slog.New(slog.NewTextHandler(t.Output(), nil)),
		Repository: "http://127.0.0.1:1", // no test fetches from elsewhere
		CacheDir:   t.TempDir(),
	}
}

func mustStart(t *testing.T, o Options) *Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), generous)
	defer cancel()
	s, err := Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mustStop(t, s) })
	return s
}

func mustStop(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), generous)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func query[T any](t *testing.T, url, statement string, args ...any) (value T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), generous)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	if err := conn.QueryRow(ctx, statement, args...).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

func remember(t *testing.T, url, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), generous)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	// Under a lock, as processes race to make the table; all in one transaction.
	_, err = conn.Exec(ctx, fmt.Sprintf(`SELECT pg_advisory_xact_lock(1);
		CREATE TABLE IF NOT EXISTS kept (what text);
		INSERT INTO kept VALUES ('%s')`, what))
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		t.Error(err)
	}
}

func recall(t *testing.T, url string) string {
	t.Helper()
	return query[string](t, url, `SELECT string_agg(what, ',') FROM kept`)
}

var (
	seedOnce sync.Once
	seedDir  string
	seedErr  error
)

// seeded is a data folder with a database that was initialised once for all tests and holds the row
// "seed".
func seeded(t *testing.T) string {
	t.Helper()
	seedOnce.Do(func() {
		if seedDir, seedErr = os.MkdirTemp(testbed.Scratch(), "medilab-seed-"); seedErr != nil {
			return
		}
		o := options(t, seedDir)
		s, err := Start(t.Context(), o)
		if err != nil {
			seedErr = err
			return
		}
		remember(t, s.URL(), "seed")
		seedErr = s.Stop(t.Context())
	})
	if seedErr != nil {
		t.Fatal(seedErr)
	}
	dir := filepath.Join(shortDir(t), "data")
	if out, err := exec.Command("cp", "-a", seedDir, dir).CombinedOutput(); err != nil {
		t.Fatalf("copy the seed: %v: %s", err, out)
	}
	return dir
}

// shortDir is a temporary folder in whose depth a socket's path still fits. Nobody else may enter it.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(testbed.Scratch(), "mlpg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can prepare this")
	}
}

// serversOf counts the servers of a data folder: a process just forked from one still looks like it.
func serversOf(t *testing.T, dataDir string) int {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	parents := map[string]string{}
	for _, file := range found {
		command, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(command), "\x00medilab.data_dir="+dataDir+"\x00") {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(file), "stat"))
		if err != nil {
			continue // it has ended
		}
		_, after, _ := strings.Cut(string(stat), ") ") // state, parent, ...
		parents[filepath.Base(filepath.Dir(file))] = strings.Fields(after)[1]
	}
	count := 0
	for _, parent := range parents {
		if _, child := parents[parent]; !child {
			count++
		}
	}
	return count
}

// listing describes all files below a folder, to see whether anything was touched.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		fmt.Fprintln(&all, path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestFirstStart is the way of a user: everything as in production, in a folder that is made.
func TestFirstStart(t *testing.T) {
	// What is meant for other servers is not for ours.
	for _, variable := range []string{"PGSERVICE=clinic", "PGTARGETSESSIONATTRS=standby", "PGOPTIONS=-cfoo=bar", "PGTZ=Nowhere", "PGMINPROTOCOLVERSION=9",
		"PGCONNECT_TIMEOUT=x", "PGREQUIREAUTH=none", "PGSSLMODE=x", "PGHOST=elsewhere", "PGPORT=x", "PGDATESTYLE=German", "PGCLIENTENCODING=x"} {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
	dir := filepath.Join(shortDir(t), "a sub+folder", "data")
	o := options(t, dir)
	o.Disposable = false
	s := mustStart(t, o)
	for setting, want := range map[string]string{
		"server_encoding": "UTF8", "lc_collate": "C", "fsync": "on", "synchronous_commit": "on",
		"listen_addresses": "", "jit": "off", "TimeZone": "UTC", "log_min_error_statement": "panic",
		"password_encryption": "scram-sha-256", "data_directory_mode": "0700",
	} {
		got := query[string](t, s.URL(), `SELECT coalesce(current_setting($1, true), (SELECT datcollate FROM pg_database WHERE datname = current_database()))`, setting)
		if got != want {
			t.Errorf("%s = %q, want %q", setting, got, want)
		}
	}
	remember(t, s.URL(), "first")
	mustStop(t, s)
	select {
	case <-s.Done():
	default:
		t.Error("Done is open after Stop")
	}
	if n := serversOf(t, o.DataDir); n != 0 {
		t.Errorf("%d servers are left after Stop", n)
	}
	again := mustStart(t, o)
	if got := recall(t, again.URL()); got != "first" {
		t.Errorf("after a restart kept = %q", got)
	}
}

// TestLogNamesNoPatient: what fails is logged without its statement, parameters and row.
func TestLogNamesNoPatient(t *testing.T) {
	dir := seeded(t)
	s := mustStart(t, options(t, dir))
	conn, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	const name = "Ivanova"
	for _, statement := range []string{
		`CREATE TABLE patients (name text UNIQUE)`,
		`INSERT INTO patients VALUES ('Ivanova')`,
		`INSERT INTO patients VALUES ('Ivanova')`,
		`SELECT 'Ivanova' FROM missing`,
	} {
		_, _ = conn.Exec(t.Context(), statement) // half of them are meant to fail
	}
	if _, err := conn.Exec(t.Context(), `INSERT INTO patients VALUES ($1)`, name); err == nil {
		t.Error("the duplicate was accepted")
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
	mustStop(t, s)
	log, err := os.ReadFile(filepath.Join(dir, "postgres.log"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "patients_name_key") || strings.Contains(string(log), name) {
		t.Errorf("the log lacks the failure or has the name:\n%s", log)
	}
}

// TestCancelledStart leaves nothing that runs, and nothing locked.
func TestCancelledStart(t *testing.T) {
	o := options(t, seeded(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	if got := recall(t, mustStart(t, o).URL()); got != "seed" {
		t.Errorf("kept = %q", got)
	}
}
