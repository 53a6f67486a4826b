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
	version string // as it prints it, "15.14"
	major   int
}

func (b binaries) postgres() string { return filepath.Join(b.dir, "postgres") }
func (b binaries) initdb() string   { return filepath.Join(b.dir, "initdb") }

const installAdvice = "install Postgres (Debian: apt-get install postgresql; Red Hat: dnf install postgresql-server; macOS: brew install postgresql), or set MEDILAB_POSTGRES_BIN to its bin folder, or DATABASE_URL to a server"

// findBinaries returns the Postgres to run: that of Options.BinDir and no other; else the first
// installed one of the database's own major version; else a downloaded one. Any version will do for a
// database that does not exist yet, whose major is 0.
func findBinaries(ctx context.Context, o Options, a account, major int) (binaries, error) {
	if o.BinDir != "" {
		b, err := inspect(ctx, a, o.BinDir)
		if err != nil {
			return binaries{}, fmt.Errorf("MEDILAB_POSTGRES_BIN=%s: %w", o.BinDir, err)
		}
		if major != 0 && b.major != major {
			return binaries{}, o.wrongMajor(major, b)
		}
		return b, nil
	}
	var others []binaries
	var refused error
	for _, dir := range o.search(ctx) {
		b, err := inspect(ctx, a, dir)
		switch {
		case ctx.Err() != nil:
			return binaries{}, fmt.Errorf("look for Postgres: %w", ctx.Err())
		case errors.Is(err, errNoAccount):
			return binaries{}, err
		case err != nil:
			refused = errors.Join(refused, err)
		case b.major < oldestMajor:
			refused = errors.Join(refused, fmt.Errorf("%s is Postgres %s, %d or newer is needed", dir, b.version, oldestMajor))
		case major == 0 || b.major == major:
			return b, nil
		default:
			others = append(others, b)
		}
	}
	if len(others) > 0 {
		return binaries{}, o.wrongMajor(major, others...)
	}
	if refused != nil {
		o.Log.Info("an installed Postgres cannot be used", "error", oneLine(refused))
	}
	return fetch(ctx, o, a, major)
}

// wrongMajor explains what to do about binaries of another major version, which Postgres would refuse
// without that.
func (o Options) wrongMajor(major int, found ...binaries) error {
	versions := make([]string, len(found))
	for i, b := range found {
		versions[i] = fmt.Sprintf("%d (%s)", b.major, b.dir)
	}
	return fmt.Errorf("%w: the database in %s was made by Postgres %d, and found is Postgres %s; nothing was changed: install Postgres %d (or name its bin folder in MEDILAB_POSTGRES_BIN), or move the data to the new version with pg_upgrade, or set MEDILAB_DATA_DIR to another folder",
		ErrVersion, o.clusterDir(), major, strings.Join(versions, ", "), major)
}

// installed returns directories that may hold a Postgres, best first: those of PATH, of pg_config,
// then those of the usual distributions, newest first.
func installed(ctx context.Context) []string {
	var dirs []string
	add := func(dir string) {
		if real, err := filepath.EvalSymlinks(dir); err == nil && hasBinaries(real) && !slices.Contains(dirs, real) {
			dirs = append(dirs, real)
		}
	}
	for _, program := range []string{"postgres", "initdb"} {
		if path, err := exec.LookPath(program); err == nil {
			// A link leads to the whole installation; its own directory may hold a part.
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
		matches, _ := filepath.Glob(pattern) // fails for a malformed pattern only
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

// majorIn returns the major version in a directory's name, or 0.
func majorIn(dir string) int {
	n, _ := strconv.Atoi(numberInPath.FindString(dir)) // 0 when there is none
	return n
}

var versionLine = regexp.MustCompile(`\(.*?\) ((\d+)[^\s]*)`)

// errNoAccount means that we cannot become the account, whatever the binaries.
var errNoAccount = errors.New("Postgres does not run as root")

// inspect runs the binaries of a directory, as the account that will run them, to learn their version.
func inspect(ctx context.Context, a account, dir string) (binaries, error) {
	if !hasBinaries(dir) {
		return binaries{}, fmt.Errorf("%s has no postgres and initdb: name the bin folder of a Postgres server", dir)
	}
	b := binaries{dir: dir}
	out, err := combinedOutput(ctx, a.command(b.postgres(), "--version"))
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
		return b, fmt.Errorf("%s --version says %q, which is no Postgres", b.postgres(), firstComplaint(out))
	}
	b.version = match[1]
	if b.major, err = strconv.Atoi(match[2]); err != nil {
		return b, fmt.Errorf("%s --version: %w", b.postgres(), err)
	}
	return b, nil
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
