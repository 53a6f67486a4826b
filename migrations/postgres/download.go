package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	embedded "github.com/fergusstrange/embedded-postgres"
)

// newestMajor is downloaded for a new database.
const newestMajor = 17

var downloadable = map[int]embedded.PostgresVersion{
	14: embedded.V14,
	15: embedded.V15,
	16: embedded.V16,
	17: embedded.V17,
	18: embedded.V18,
}

// fetch returns a Postgres from the cache, downloading it if necessary. Major is 0 for a new database.
func fetch(ctx context.Context, o Options, a account, major int) (binaries, error) {
	if major == 0 {
		major = newestMajor
	}
	version, known := downloadable[major]
	if !known {
		return binaries{}, fmt.Errorf("%w: the database in %s was made by Postgres %d, which is neither found on this machine nor fetchable; nothing was changed: install it, or name its bin folder in MEDILAB_POSTGRES_BIN", ErrVersion, o.clusterDir(), major)
	}
	cache, err := o.cacheDir()
	if err != nil {
		return binaries{}, fmt.Errorf("no Postgres found, and no folder to fetch one into: %w: %s", err, installAdvice)
	}
	home := filepath.Join(cache, "postgres-"+string(version))
	if !hasBinaries(filepath.Join(home, "bin")) {
		o.Log.Info("no Postgres found on this machine, fetching one", "version", string(version), "into", home)
		if err := o.download(ctx, version, cache, home); err != nil {
			return binaries{}, fmt.Errorf("no Postgres found, and fetching one failed: %w: %s", err, installAdvice)
		}
	}
	return inspect(ctx, a, filepath.Join(home, "bin"))
}

// cacheDir returns where downloaded binaries are kept. As root, that is a place which an unprivileged
// account can reach, because Postgres reads its own directory by name.
func (o Options) cacheDir() (string, error) {
	if o.CacheDir != "" {
		return filepath.Abs(o.CacheDir)
	}
	if os.Geteuid() == 0 {
		return "/var/cache/medilab-webhooks", nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return o.DataDir, nil //nolint:nilerr // a user without a home keeps them next to the data
	}
	return filepath.Join(cache, "medilab-webhooks"), nil
}

// download fetches one version and moves it to home, which is complete or absent at any time.
func (o Options) download(ctx context.Context, version embedded.PostgresVersion, cache, home string) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	if os.Geteuid() == 0 && o.CacheDir == "" {
		if err := os.Chmod(cache, 0o755); err != nil { // our umask may have closed it
			return err
		}
	}
	scratch, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return err
	}
	// The library takes no context: when ctx ends we stop waiting, and the download ends by itself,
	// in its scratch directory, which is then removed.
	ended := make(chan error, 1)
	go func() { ended <- errors.Join(o.unpack(version, scratch, home), os.RemoveAll(scratch)) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unpack downloads into scratch and moves the result to home.
//
// The library has no call that only downloads: its Start also initialises and runs a database, and
// deletes a data directory of another version. So it gets a runtime directory that cannot be created
// (below a dangling link), which ends Start right after unpacking, and none of our own directories.
func (o Options) unpack(version embedded.PostgresVersion, scratch, home string) error {
	unpacked, dangling := filepath.Join(scratch, "unpacked"), filepath.Join(scratch, "dangling")
	if err := os.Symlink(filepath.Join(scratch, "nothing"), dangling); err != nil {
		return err
	}
	port, err := o.freePort() // the library insists on a free port that it will not use
	if err != nil {
		return err
	}
	config := embedded.DefaultConfig().
		Version(version).
		Port(uint32(port)).
		CachePath(filepath.Join(scratch, "archive")).
		BinariesPath(unpacked).
		RuntimePath(filepath.Join(dangling, "runtime")).
		DataPath(filepath.Join(dangling, "data")).
		Logger(nil)
	if o.Repository != "" {
		config = config.BinaryRepositoryURL(o.Repository)
	}
	if err := embedded.NewDatabase(config).Start(); !hasBinaries(filepath.Join(unpacked, "bin")) {
		return err
	}
	return install(unpacked, home)
}

// install moves unpacked binaries to home; another process may have been faster. The account that
// runs Postgres may read and run them, whatever our umask.
func install(unpacked, home string) error {
	err := filepath.WalkDir(unpacked, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.Type()&os.ModeSymlink != 0 {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o444
		if entry.IsDir() || mode&0o100 != 0 {
			mode |= 0o111
		}
		return os.Chmod(path, mode)
	})
	if err != nil {
		return err
	}
	if err := os.Rename(unpacked, home); err != nil && !hasBinaries(filepath.Join(home, "bin")) {
		return err
	}
	return nil
}

// freePort returns a loopback port that is free at this moment.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}
