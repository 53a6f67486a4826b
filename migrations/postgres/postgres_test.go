package postgres

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
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
		if seedDir, seedErr = os.MkdirTemp("", "medilab-seed-"); seedErr != nil {
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
	dir, err := os.MkdirTemp("", "mlpg-")
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

// TestOthersAreKeptOut: neither a wrong password nor another user of the machine gets in.
func TestOthersAreKeptOut(t *testing.T) {
	dir := seeded(t)
	s := mustStart(t, options(t, dir))
	if conn, err := pgx.Connect(t.Context(), strings.Replace(s.URL(), roleName+":", roleName+":x", 1)); err == nil {
		t.Error("a wrong password connects")
		_ = conn.Close(t.Context())
	}
	for path, want := range map[string]fs.FileMode{
		"postgres": 0o700, "run": 0o700, "lock": 0o600, "postgres.log": 0o600, "postgres/" + passwordFile: 0o600,
	} {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
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

func TestRacingStartsHaveOneWinner(t *testing.T) {
	o := options(t, seeded(t))
	const racers = 4
	servers, errs := make([]*Server, racers), make([]error, racers)
	var all sync.WaitGroup
	for i := range racers {
		all.Go(func() { servers[i], errs[i] = Start(t.Context(), o) })
	}
	all.Wait()
	winners := 0
	for i, s := range servers {
		switch {
		case errs[i] == nil:
			winners++
			defer mustStop(t, s)
		case !errors.Is(errs[i], ErrInUse):
			t.Errorf("loser: %v, want ErrInUse", errs[i])
		}
	}
	if winners != 1 || serversOf(t, o.DataDir) != 1 {
		t.Errorf("%d winners, %d servers, want one", winners, serversOf(t, o.DataDir))
	}
}

// TestCommandsMakeNoDatabase: a command leaves a folder that has none as it is.
func TestCommandsMakeNoDatabase(t *testing.T) {
	o := options(t, filepath.Join(shortDir(t), "data"))
	if _, err := Open(t.Context(), o); !errors.Is(err, ErrNoDatabase) {
		t.Errorf("no folder: %v", err)
	}
	if err := os.Mkdir(o.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), o); !errors.Is(err, ErrNoDatabase) {
		t.Errorf("an empty folder: %v", err)
	}
	if _, err := os.Stat(o.clusterDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a database was made: %v", err)
	}
}

// TestRacingCommandsShare: commands that start together all work, on one server, which the one that
// runs it stops only after the others.
func TestRacingCommandsShare(t *testing.T) {
	o := options(t, seeded(t))
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			s, err := Open(t.Context(), o)
			if err != nil {
				t.Error(err)
				return
			}
			remember(t, s.URL(), "x")
			mustStop(t, s)
		})
	}
	all.Wait()
	s := mustStart(t, o)
	if got := recall(t, s.URL()); got != "seed,x,x,x" {
		t.Errorf("kept = %q, want three more", got)
	}
}

func TestOpenUsesTheRunningServer(t *testing.T) {
	o := options(t, seeded(t))
	if _, err := Attach(t.Context(), o.DataDir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("attach to nothing: %v, want ErrNotRunning", err)
	}
	if _, err := Attach(t.Context(), filepath.Join(o.DataDir, "none")); !errors.Is(err, ErrNotRunning) {
		t.Errorf("attach to no folder: %v, want ErrNotRunning", err)
	}
	serving := mustStart(t, o)
	command, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if recall(t, command.URL()) != "seed" || serversOf(t, o.DataDir) != 1 {
		t.Error("the command does not use the running server")
	}
	mustStop(t, command)
	if recall(t, serving.URL()) != "seed" {
		t.Error("the server ended with the command")
	}
}

// TestServeWaitsForACommand: a server that a command runs for a moment does not refuse serve.
func TestServeWaitsForACommand(t *testing.T) {
	o := options(t, seeded(t))
	command, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan struct{})
	o.Log = slog.New(slog.NewTextHandler(onWrite(func(line string) {
		if strings.Contains(line, "waiting for another command") {
			close(waits)
		}
	}), nil))
	started := make(chan *Server, 1)
	go func() {
		s, err := Start(t.Context(), o)
		if err != nil {
			t.Error(err)
		}
		started <- s
	}()
	<-waits
	mustStop(t, command)
	if s := <-started; s != nil {
		mustStop(t, s)
	}
}

type onWrite func(string)

func (f onWrite) Write(p []byte) (int, error) { f(string(p)); return len(p), nil }

// TestKilledProcessLosesNothing: after kill -9 the server ends by itself, and the next start finds
// everything that was committed.
func TestKilledProcessLosesNothing(t *testing.T) {
	o := options(t, seeded(t))
	h := startHelper(t, o.DataDir, nil)
	h.await(t, "ready")
	s, err := Attach(t.Context(), o.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	remember(t, s.URL(), "before the kill")
	mustStop(t, s)
	h.kill()
	next := mustStart(t, o)
	if got := recall(t, next.URL()); got != "seed,before the kill" {
		t.Errorf("kept = %q", got)
	}
	if n := serversOf(t, o.DataDir); n != 1 {
		t.Errorf("%d servers run, want one", n)
	}
}

// TestStalePostmasterIsStopped: a server that did not end with its process is stopped, not doubled.
func TestStalePostmasterIsStopped(t *testing.T) {
	o, err := options(t, seeded(t)).complete()
	if err != nil {
		t.Fatal(err)
	}
	left := leaveBehind(t, o)
	s := mustStart(t, o)
	<-left.ended
	if got := recall(t, s.URL()); got != "seed" {
		t.Errorf("kept = %q", got)
	}
	if n := serversOf(t, o.DataDir); n != 1 {
		t.Errorf("%d servers run, want one", n)
	}
}

// leaveBehind starts a server that no lock knows of.
func leaveBehind(t *testing.T, o Options) *child {
	t.Helper()
	a, err := chooseAccount(o.clusterDir())
	if err != nil {
		t.Fatal(err)
	}
	b, err := findBinaries(t.Context(), o, a, 0)
	if err != nil {
		t.Fatal(err)
	}
	password, err := readPassword(o.clusterDir())
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Options: o, account: a, binaries: b, password: password}
	left, err := c.launch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = left.stop(t.Context()) })
	return left
}

// TestKilledServer: a server that dies is noticed, and the next one recovers.
func TestKilledServer(t *testing.T) {
	o := options(t, seeded(t))
	o.Disposable = false // what was committed must be there
	s := mustStart(t, o)
	remember(t, s.URL(), "before the kill")
	if err := syscall.Kill(s.child.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	mustStop(t, s)
	next := mustStart(t, o)
	if got := recall(t, next.URL()); got != "seed,before the kill" {
		t.Errorf("kept = %q", got)
	}
}

// TestSupervisedServer: a server that dies comes back by itself, at the same URL, with what was committed, on a
// socket and on a port.
func TestSupervisedServer(t *testing.T) {
	for name, folder := range map[string]string{"socket": "kept", "port": strings.Repeat("long", 30)} {
		t.Run(name, func(t *testing.T) {
			seed := seeded(t)
			o := options(t, filepath.Join(filepath.Dir(seed), folder))
			if err := os.Rename(seed, o.DataDir); err != nil {
				t.Fatal(err)
			}
			o.Disposable = false // what was committed must be there
			s := mustStart(t, o)
			at := s.URL()
			waiting, enough := context.WithTimeout(t.Context(), generous)
			defer enough()
			ctx, cancel := context.WithCancel(waiting)
			defer cancel()
			kept := make(chan struct{})
			go func() { defer close(kept); s.Supervise(ctx) }()
			for _, note := range []string{"one", "two"} {
				remember(t, at, note)
				died := s.Done()
				if err := syscall.Kill(s.child.cmd.Process.Pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				<-died
				for s.Done() == died { // it is another server's when one runs
					if err := pause(waiting, pollInterval); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got := recall(t, at); got != "seed,one,two" || s.URL() != at {
				t.Errorf("kept = %q, at the same place: %v", got, s.URL() == at)
			}
			cancel()
			<-kept
			mustStop(t, s)
			if n := serversOf(t, o.DataDir); n != 0 {
				t.Errorf("%d servers are left after Stop", n)
			}
		})
	}
}

// TestStrangersPid: the number in a stale note belongs to another program now, which is left alone.
func TestStrangersPid(t *testing.T) {
	o, err := options(t, seeded(t)).complete()
	if err != nil {
		t.Fatal(err)
	}
	a, err := chooseAccount(o.clusterDir())
	if err != nil {
		t.Fatal(err)
	}
	sleep := a.command("/bin/sleep", "600") // of the same user, or Postgres would see through it
	stranger, err := startChild(sleep)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stranger.signal(syscall.SIGKILL); <-stranger.ended })
	note := fmt.Sprintf("%d\n%s\n1700000000\n5432\n/tmp\n\n  1234567 32768\nready   \n", sleep.Process.Pid, o.clusterDir())
	if err := os.WriteFile(filepath.Join(o.clusterDir(), "postmaster.pid"), []byte(note), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.give(filepath.Join(o.clusterDir(), "postmaster.pid")); err != nil {
		t.Fatal(err)
	}
	s := mustStart(t, o)
	if got := recall(t, s.URL()); got != "seed" {
		t.Errorf("kept = %q", got)
	}
	select {
	case <-stranger.ended:
		t.Error("another program was stopped")
	default:
	}
}

// TestKilledInitialisation: a half-made database is never taken for one.
func TestKilledInitialisation(t *testing.T) {
	o := options(t, filepath.Join(shortDir(t), "data"))
	h := startHelper(t, o.DataDir, nil)
	h.await(t, "initialising")
	h.kill()
	// What a kill in the very last moment leaves as well: an empty folder in the database's place.
	if err := os.Mkdir(filepath.Join(o.DataDir, "postgres"), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	s := mustStart(t, o)
	remember(t, s.URL(), "whole")
	left, err := filepath.Glob(filepath.Join(o.DataDir, scratchPrefix+"*"))
	if err != nil || len(left) != 0 {
		t.Errorf("scratch folders are left: %v, %v", left, err)
	}
}

func TestForeignFoldersAreNotTouched(t *testing.T) {
	tests := map[string]struct {
		file, content string
		is            error
		says          []string
	}{
		"older major":     {"PG_VERSION", "13\n", ErrVersion, []string{"Postgres 13", "Postgres 15", "pg_upgrade"}},
		"ancient version": {"PG_VERSION", "9.6\n", ErrVersion, []string{"Postgres 9", "Postgres 15"}},
		"no version":      {"PG_VERSION", "none\n", nil, []string{"no version of Postgres"}},
		"no database":     {"holiday.jpg", "beach", nil, []string{"no Postgres database"}},
	}
	major := installedMajor(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := options(t, filepath.Join(shortDir(t), "data"))
			if err := os.MkdirAll(filepath.Join(o.DataDir, "postgres", "base"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(o.DataDir, "postgres", test.file), []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			before := listing(t, filepath.Join(o.DataDir, "postgres"))
			_, err := Start(t.Context(), o)
			if err == nil {
				t.Fatal("it started")
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("error %v is not %v", err, test.is)
			}
			for _, text := range test.says {
				text = strings.Replace(text, "Postgres 15", fmt.Sprintf("Postgres %d", major), 1)
				if !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error %q is not one line with %q", err, text)
				}
			}
			if after := listing(t, filepath.Join(o.DataDir, "postgres")); after != before {
				t.Errorf("the folder was touched:\n%s\n%s", before, after)
			}
		})
	}
}

func installedMajor(t *testing.T) int {
	t.Helper()
	for _, dir := range installed(t.Context()) {
		if b, err := inspect(t.Context(), account{}, dir); err == nil {
			return b.major
		}
	}
	t.Skip("no Postgres is installed")
	return 0
}

// tmpfs mounts a file system of its own at a new folder.
func tmpfs(t *testing.T, data string) string {
	t.Helper()
	needRoot(t)
	dir := shortDir(t)
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", data, "medilab-test", dir).CombinedOutput(); err != nil {
		t.Skipf("this root may not mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

func TestFullDisk(t *testing.T) {
	dir := tmpfs(t, "size=8m")
	_, err := Start(t.Context(), options(t, filepath.Join(dir, "data")))
	if err == nil || !strings.Contains(err.Error(), "is full") || strings.Contains(err.Error(), "\n") {
		t.Fatalf("error %v is not one line that says the disk is full", err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			t.Errorf("%s is left behind", entry.Name())
		}
	}
}

// TestDiskFillsUp: a start on a disk that filled up since says so, and works when there is space again.
func TestDiskFillsUp(t *testing.T) {
	seed := seeded(t)
	dir := tmpfs(t, "size=128m")
	o := options(t, filepath.Join(dir, "data"))
	if out, err := exec.Command("cp", "-a", seed, o.DataDir).CombinedOutput(); err != nil {
		t.Fatalf("copy the seed: %v: %s", err, out)
	}
	ballast := filepath.Join(dir, "ballast")
	if _, err := exec.Command("dd", "if=/dev/zero", "of="+ballast, "bs=64k").CombinedOutput(); err == nil {
		t.Fatal("the disk does not fill up")
	}
	_, err := Start(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "is full") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %v is not one line that says the disk is full", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s := mustStart(t, o)
	if got := recall(t, s.URL()); got != "seed" {
		t.Errorf("kept = %q", got)
	}
	mustStop(t, s) // before the disk goes
}

func TestReadOnlyDisk(t *testing.T) {
	for name, sub := range map[string]string{"new folder": "data", "the disk itself": ""} {
		t.Run(name, func(t *testing.T) {
			dir := tmpfs(t, "size=8m")
			if out, err := exec.Command("mount", "-o", "remount,ro", dir).CombinedOutput(); err != nil {
				t.Skipf("this root may not remount: %v: %s", err, out)
			}
			_, err := Start(t.Context(), options(t, filepath.Join(dir, sub)))
			if err == nil || !strings.Contains(err.Error(), "read-only") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v is not one line that says read-only", err)
			}
		})
	}
}

// TestUnprivilegedUser runs all of it as nobody: in a folder of theirs, and in one that is not.
func TestUnprivilegedUser(t *testing.T) {
	needRoot(t)
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	dir := shortDir(t)
	if err := os.Chown(dir, int(nobody.Uid), int(nobody.Gid)); err != nil {
		t.Fatal(err)
	}
	h := startHelper(t, filepath.Join(dir, "data"), nobody)
	h.await(t, "ready")
	s, err := Attach(t.Context(), filepath.Join(dir, "data")) // root may use it
	if err != nil {
		t.Fatal(err)
	}
	remember(t, s.URL(), "theirs")
	mustStop(t, s)
	h.kill()
	// Root goes on with it and leaves it theirs.
	ours := mustStart(t, options(t, filepath.Join(dir, "data")))
	if got := recall(t, ours.URL()); got != "theirs" {
		t.Errorf("kept = %q", got)
	}
	startHelper(t, shortDir(t), nobody).await(t, "cannot be written by this user")
}

// TestRestoredByRoot: files that a root's copy made root's own are given back to who runs Postgres.
func TestRestoredByRoot(t *testing.T) {
	needRoot(t)
	o := options(t, seeded(t))
	if out, err := exec.Command("chown", "-R", "root:root", o.DataDir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := recall(t, mustStart(t, o).URL()); got != "seed" {
		t.Errorf("kept = %q", got)
	}
}

// TestLongPath: where a socket's path would not fit, the server listens on a loopback port, and on
// another when that one is taken.
func TestLongPath(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // nothing was written
	seed := seeded(t)
	o := options(t, filepath.Join(filepath.Dir(seed), strings.Repeat("long", 30)))
	if err := os.Rename(seed, o.DataDir); err != nil {
		t.Fatal(err)
	}
	asked := 0
	o.freePort = func() (int, error) {
		if asked++; asked == 1 {
			return taken.Addr().(*net.TCPAddr).Port, nil
		}
		return freePort()
	}
	s := mustStart(t, o)
	if got := recall(t, s.URL()); got != "seed" || asked != 2 {
		t.Errorf("kept = %q after %d ports", got, asked)
	}
	command, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if command.URL() != s.URL() {
		t.Error("a command finds another server")
	}
	mustStop(t, command)
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
