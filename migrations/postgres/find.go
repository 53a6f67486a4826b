package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// oldestMajor is the oldest Postgres that we run.
const oldestMajor = 14

// binaries are a Postgres that can be run.
type binaries struct {
	dir     string
	version string // as it calls itself, "15.14"
	major   int
}

func (b binaries) postgres() string { return filepath.Join(b.dir, "postgres") }
func (b binaries) initdb() string   { return filepath.Join(b.dir, "initdb") }

const installAdvice = "install Postgres (Debian: apt-get install postgresql; Red Hat: dnf install postgresql-server; macOS: brew install postgresql), or set MEDILAB_POSTGRES_BIN to its bin folder, or DATABASE_URL to a server"

// findBinaries chooses the Postgres to run: the folder that the options name and no other; else the
// first installed one of the database's own major version; else fetched binaries. major is 0 for a
// database that does not exist yet: then the first installed one will do.
func findBinaries(ctx context.Context, o Options, a account, major int) (binaries, error) {
	if o.BinDir != "" {
		b, err := inspect(ctx, a, o.BinDir)
		if err != nil {
			return binaries{}, fmt.Errorf("MEDILAB_POSTGRES_BIN=%s: %w", o.BinDir, err)
		}
		return b, o.match(major, []binaries{b})
	}
	var found []binaries
	var refused error
	for _, dir := range o.search(ctx) {
		b, err := inspect(ctx, a, dir)
		if err == nil && b.major < oldestMajor {
			err = fmt.Errorf("%s is Postgres %s, %d or newer is needed", dir, b.version, oldestMajor)
		}
		if ctx.Err() != nil {
			return binaries{}, fmt.Errorf("look for Postgres: %w", ctx.Err())
		}
		if errors.Is(err, errNoAccount) {
			return binaries{}, err
		}
		if err != nil {
			refused = errors.Join(refused, err)
			continue
		}
		if major == 0 || b.major == major {
			return b, nil
		}
		found = append(found, b)
	}
	if len(found) > 0 {
		return binaries{}, o.match(major, found)
	}
	if refused != nil {
		o.Log.Info("an installed Postgres cannot be used", "error", oneLine(refused))
	}
	return fetch(ctx, o, a, major)
}

// match refuses to run a database with binaries of another major version: Postgres would refuse as
// well, but not say what to do.
func (o Options) match(major int, found []binaries) error {
	var versions []string
	for _, b := range found {
		if b.major == major || major == 0 {
			return nil
		}
		versions = append(versions, fmt.Sprintf("%d (%s)", b.major, b.dir))
	}
	return fmt.Errorf("%w: the database in %s was made by Postgres %d, and found is Postgres %s; nothing was changed: install Postgres %d (or name its bin folder in MEDILAB_POSTGRES_BIN), or move the data to the new version with pg_upgrade, or set MEDILAB_DATA_DIR to another folder",
		ErrVersion, o.cluster(), major, strings.Join(versions, ", "), major)
}

// installed lists folders that may hold a Postgres, best first: what the user's PATH says, what
// pg_config says, then the folders of Debian, Red Hat and Homebrew, newest first.
func installed(ctx context.Context) []string {
	var dirs []string
	add := func(dir string) {
		if real, err := filepath.EvalSymlinks(dir); err == nil && hasBinaries(real) && !slices.Contains(dirs, real) {
			dirs = append(dirs, real)
		}
	}
	for _, program := range []string{"postgres", "initdb"} {
		if path, err := exec.LookPath(program); err == nil {
			// Behind a link is the whole installation, beside it perhaps a part.
			if real, err := filepath.EvalSymlinks(path); err == nil {
				add(filepath.Dir(real))
			}
			add(filepath.Dir(path))
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		add(strings.TrimSpace(string(out)))
	}
	var usual []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",         // Debian, Ubuntu
		"/usr/pgsql-*/bin",                  // Red Hat, from postgresql.org
		"/usr/libexec/postgresql*",          // Alpine
		"/opt/homebrew/opt/postgresql*/bin", // Homebrew, ARM
		"/usr/local/opt/postgresql*/bin",    // Homebrew, Intel
		"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
		"/Applications/Postgres.app/Contents/Versions/*/bin",
		"/usr/local/pgsql/bin", // built from source
	} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			continue // only a malformed pattern fails, and these are constants
		}
		usual = append(usual, matches...)
	}
	slices.SortStableFunc(usual, func(a, b string) int { return majorIn(b) - majorIn(a) })
	for _, dir := range usual {
		add(dir)
	}
	return dirs
}

func hasBinaries(dir string) bool {
	for _, program := range []string{"postgres", "initdb"} {
		if info, err := os.Stat(filepath.Join(dir, program)); err != nil || info.IsDir() {
			return false
		}
	}
	return true
}

var numberInPath = regexp.MustCompile(`\d+`)

// majorIn is the major version that a folder's name tells, or 0.
func majorIn(dir string) int {
	n, err := strconv.Atoi(numberInPath.FindString(dir))
	if err != nil {
		return 0
	}
	return n
}

var versionLine = regexp.MustCompile(`\(.*?\) ((\d+)[^\s]*)`)

// errNoAccount: whatever the binaries, nobody can be made to run them.
var errNoAccount = errors.New("Postgres does not run as root")

// inspect runs the binaries of a folder, as the account that will run them, to learn their version.
func inspect(ctx context.Context, a account, dir string) (binaries, error) {
	if !hasBinaries(dir) {
		return binaries{}, fmt.Errorf("%s has no postgres and initdb: name the bin folder of a Postgres server", dir)
	}
	b := binaries{dir: dir}
	out, err := complete(ctx, a.command(b.postgres(), "--version"))
	if a.cred != nil && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EINVAL)) {
		return b, fmt.Errorf("%w: this process is root and cannot become user %s (a container without the capabilities SETUID and SETGID, or without that user): run as an ordinary user, or set DATABASE_URL", errNoAccount, a.name)
	}
	if a.cred != nil && errors.Is(err, syscall.EACCES) {
		return b, fmt.Errorf("%s cannot be run as user %s, who runs Postgres because root may not: make it reachable for that user, or run as another user", b.postgres(), a.name)
	}
	if err != nil {
		return b, fmt.Errorf("%s --version: %w", b.postgres(), err)
	}
	match := versionLine.FindStringSubmatch(out)
	if match == nil {
		return b, fmt.Errorf("%s --version says %q, which is no Postgres", b.postgres(), firstLine(out))
	}
	b.version = match[1]
	if b.major, err = strconv.Atoi(match[2]); err != nil {
		return b, fmt.Errorf("%s --version: %w", b.postgres(), err)
	}
	return b, nil
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
