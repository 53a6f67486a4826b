package postgres

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// fakePostgres makes a bin folder whose programs only tell a version.
func fakePostgres(t *testing.T, version string) string {
	t.Helper()
	dir := filepath.Join(openDir(t), "bin")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"postgres", "initdb"} {
		script := fmt.Sprintf("#!/bin/sh\necho '%s (PostgreSQL) %s (Debian %s-1)'\n", program, version, version)
		if err := os.WriteFile(filepath.Join(dir, program), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// openDir is a temporary folder that any user may enter, as an installation is.
func openDir(t *testing.T) string {
	t.Helper()
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFindBinaries(t *testing.T) {
	v13, v15, v16, v17 := fakePostgres(t, "13.4"), fakePostgres(t, "15.14"), fakePostgres(t, "16.9"), fakePostgres(t, "17beta1")
	none := openDir(t)
	tests := map[string]struct {
		binDir string
		found  []string
		major  int
		want   string
		says   string
	}{
		"first found for a new database":       {found: []string{v16, v15}, want: v16},
		"too old is passed over":               {found: []string{v13, v17}, want: v17},
		"the one that made the database":       {found: []string{v16, v15}, major: 15, want: v15},
		"none that made the database":          {found: []string{v16, v17}, major: 15, says: "was made by Postgres 15, and found is Postgres 16"},
		"named":                                {binDir: v15, found: []string{v16}, want: v15},
		"named is of another major":            {binDir: v16, found: []string{v15}, major: 15, says: "was made by Postgres 15, and found is Postgres 16"},
		"named has none":                       {binDir: none, found: []string{v15}, says: "MEDILAB_POSTGRES_BIN=" + none},
		"found has none, and nothing to fetch": {found: []string{none}, says: "apt-get install postgresql"},
		"unknown major, nothing found":         {major: 12, says: "neither found on this machine nor fetchable"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o, err := options(t, shortDir(t)).complete()
			if err != nil {
				t.Fatal(err)
			}
			o.BinDir = test.binDir
			o.search = func(context.Context) []string { return test.found }
			t.Setenv("TMPDIR", o.DataDir) // the library that fetches leaves a file there
			a, err := chooseAccount(o.clusterDir())
			if err != nil {
				t.Fatal(err)
			}
			b, err := findBinaries(t.Context(), o, a, test.major)
			if test.says != "" {
				if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error %v is not one line with %q", err, test.says)
				}
				return
			}
			if err != nil || b.dir != test.want {
				t.Errorf("found %v, %v, want %s", b, err, test.want)
			}
		})
	}
}

// TestUnreachableBinaries: root's private installation is no use to who runs Postgres, and the error
// says so.
func TestUnreachableBinaries(t *testing.T) {
	needRoot(t)
	dir := fakePostgres(t, "15.14")
	if err := os.Chmod(filepath.Dir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	o := options(t, shortDir(t))
	o.BinDir = dir
	if _, err := Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), "make it reachable") {
		t.Errorf("error %v, want one that says what to do", err)
	}
}

// archive builds what the repository serves: a jar with a txz of bin/, whose programs here only pass
// on to an installed Postgres.
func archive(t *testing.T) []byte {
	t.Helper()
	found := installed(t.Context())
	if len(found) == 0 {
		t.Skip("no Postgres is installed to put into an archive")
	}
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("no xz to make an archive with")
	}
	dir := shortDir(t)
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"postgres", "initdb", "pg_ctl"} {
		script := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\"\n", filepath.Join(found[0], program))
		if err := os.WriteFile(filepath.Join(dir, "bin", program), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	packed, err := exec.Command("tar", "-C", dir, "-cJf", "-", "bin/postgres", "bin/initdb", "bin/pg_ctl").Output()
	if err != nil {
		t.Fatal(err)
	}
	var jar bytes.Buffer
	z := zip.NewWriter(&jar)
	w, err := z.Create("postgres-linux-x86_64.txz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(packed); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return jar.Bytes()
}

// TestFetch starts a server on fetched binaries, the second time without a request.
func TestFetch(t *testing.T) {
	jar := archive(t)
	requests := 0
	repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		body := jar
		if strings.HasSuffix(r.URL.Path, ".sha256") {
			body = fmt.Appendf(nil, "%x", sha256.Sum256(jar))
		}
		if _, err := w.Write(body); err != nil {
			t.Error(err)
		}
	}))
	defer repository.Close()
	o := options(t, filepath.Join(shortDir(t), "data"))
	o.Repository = repository.URL
	o.CacheDir = openDir(t)
	o.search = func(context.Context) []string { return nil }
	t.Setenv("TMPDIR", shortDir(t)) // the library leaves a file there
	s := mustStart(t, o)
	remember(t, s.URL(), "fetched")
	mustStop(t, s)

	// The archive passes on to a Postgres of perhaps another version than it claims. From then on the
	// database's own version is wanted, so the second start may fetch that one, but the third nothing.
	mustStop(t, mustStart(t, o))
	asked := requests
	if got := recall(t, mustStart(t, o).URL()); got != "fetched" || requests != asked {
		t.Errorf("kept = %q after %d more requests", got, requests-asked)
	}
	left, err := filepath.Glob(filepath.Join(o.CacheDir, "fetch-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("the cache holds %v, %v, want whole versions only", left, err)
	}
}

// TestFetchFails: nothing is left, and the error says what to do.
func TestFetchFails(t *testing.T) {
	jar := archive(t)
	tests := map[string]struct {
		answer func(http.ResponseWriter, *http.Request)
		says   string
	}{
		"no such version": {http.NotFound, "no version found"},
		"no archive": {func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, ".sha256") {
				http.NotFound(w, r)
				return
			}
			fmt.Fprint(w, "<html>")
		}, "error fetching postgres"},
		"wrong checksum": {func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, ".sha256") {
				fmt.Fprint(w, "00")
				return
			}
			_, _ = w.Write(jar)
		}, "checksums do not match"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			repository := httptest.NewServer(http.HandlerFunc(test.answer))
			defer repository.Close()
			t.Setenv("TMPDIR", shortDir(t))
			o := options(t, filepath.Join(shortDir(t), "data"))
			o.Repository = repository.URL
			o.search = func(context.Context) []string { return nil }
			_, err := Start(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "DATABASE_URL") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v is not one line with %q and what to do", err, test.says)
			}
			left, err := filepath.Glob(filepath.Join(o.CacheDir, "*"))
			if err != nil || len(left) != 0 {
				t.Errorf("the cache holds %v, %v, want nothing", left, err)
			}
		})
	}
}

func TestInstalledFindsThisMachines(t *testing.T) {
	found := installed(t.Context())
	if len(found) == 0 {
		t.Skip("no Postgres is installed")
	}
	for _, dir := range found {
		if !hasBinaries(dir) {
			t.Errorf("%s has no binaries", dir)
		}
	}
}

func TestMajorIn(t *testing.T) {
	for dir, want := range map[string]int{
		"/usr/lib/postgresql/15/bin": 15, "/usr/pgsql-9.6/bin": 9, "/opt/homebrew/opt/postgresql@16/bin": 16, "/usr/local/pgsql/bin": 0,
	} {
		if got := majorIn(dir); got != want {
			t.Errorf("majorIn(%s) = %d, want %d", dir, got, want)
		}
	}
}

func TestSharedBuffers(t *testing.T) {
	for total, want := range map[uint64]uint64{
		0: 256 * megabyte, 64 << 30: 256 * megabyte, 1 << 30: 128 * megabyte, 64 * megabyte: 16 * megabyte,
	} {
		if got := sharedBuffers(total); got != want {
			t.Errorf("sharedBuffers(%d) = %d, want %d", total, got, want)
		}
	}
}

func TestEndpointURL(t *testing.T) {
	for name, test := range map[string]struct {
		e    endpoint
		fits bool
	}{
		"plain":   {endpoint{"/var/lib/x/run", 5432}, true},
		"spaces":  {endpoint{"/home/Иван Петров/data?&=#%/run", 5432}, true},
		"comma":   {endpoint{"/srv/a,b/run", 5432}, false},
		"longest": {endpoint{"/" + strings.Repeat("x", socketPathMax-15), 5432}, true},
		"longer":  {endpoint{"/" + strings.Repeat("x", socketPathMax-14), 5432}, false},
	} {
		if got := test.e.fits(); got != test.fits {
			t.Errorf("%s: fits = %v", name, got)
		}
		if config, err := pgx.ParseConfig(test.e.url("a b+c")); test.fits && (err != nil || config.Host != test.e.dir || config.Password != "a b+c") {
			t.Errorf("%s: host %q, %v", name, config.Host, err)
		}
	}
}

func TestOutputIsBounded(t *testing.T) {
	dir := shortDir(t)
	o, err := options(t, dir).complete()
	if err != nil {
		t.Fatal(err)
	}
	w := newOutput(o.logFile(), o.Log)
	line := bytes.Repeat([]byte("x"), 1<<20)
	line[len(line)-1] = '\n'
	for range 35 {
		if n, err := w.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	w.close()
	var total int64
	for _, name := range []string{"postgres.log", "postgres.log.1"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 2*logBytes {
		t.Errorf("the log takes %d bytes", total)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("%v, %v, want two files", entries, err)
	}
}

func TestOutputCannotStall(t *testing.T) {
	o, err := options(t, shortDir(t)).complete()
	if err != nil {
		t.Fatal(err)
	}
	w := newOutput(filepath.Join(o.DataDir, "missing", "postgres.log"), o.Log)
	text := []byte("12:00 [1] FATAL:  something broke\n12:00 [1] LOG:  database system is ready to accept connections\n")
	if n, err := w.Write(text); n != len(text) || err != nil {
		t.Errorf("Write = %d, %v, want success", n, err)
	}
	<-w.ready
	if last, _ := w.complaints(); last != "something broke" {
		t.Errorf("complaint %q", last)
	}
	w.close()
}

func TestOptionsNeedAFolder(t *testing.T) {
	_, err := Start(t.Context(), Options{})
	if err == nil || errors.Is(err, ErrInUse) {
		t.Errorf("error %v, want one that asks for a folder", err)
	}
}
