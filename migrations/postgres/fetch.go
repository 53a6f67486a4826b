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

// fetchable are the versions that can be fetched, by major version; 0 is for a new database.
var fetchable = map[int]embedded.PostgresVersion{
	0:  embedded.V17,
	14: embedded.V14,
	15: embedded.V15,
	16: embedded.V16,
	17: embedded.V17,
	18: embedded.V18,
}

// fetch downloads and unpacks a Postgres into a cache, or uses what is there from the last time.
func fetch(ctx context.Context, o Options, a account, major int) (binaries, error) {
	version, known := fetchable[major]
	if !known {
		return binaries{}, fmt.Errorf("%w: the database in %s was made by Postgres %d, which is neither found on this machine nor fetchable; nothing was changed: install it, or name its bin folder in MEDILAB_POSTGRES_BIN", ErrVersion, o.cluster(), major)
	}
	cache, err := o.cacheDir()
	if err != nil {
		return binaries{}, fmt.Errorf("no Postgres found, and no folder to fetch one into: %w: %s", err, installAdvice)
	}
	home := filepath.Join(cache, "postgres-"+string(version))
	if !hasBinaries(filepath.Join(home, "bin")) {
		o.Log.Info("no Postgres found on this machine, fetching one", "version", string(version), "into", home)
		if err := download(ctx, o, version, cache, home); err != nil {
			return binaries{}, fmt.Errorf("no Postgres found, and fetching one failed: %w: %s", err, installAdvice)
		}
	}
	return inspect(ctx, a, filepath.Join(home, "bin"))
}

// cacheDir is where fetched binaries are kept: a place that an unprivileged account can reach when
// we are root, because Postgres reads its own folder by name.
func (o Options) cacheDir() (string, error) {
	if o.CacheDir != "" {
		return filepath.Abs(o.CacheDir)
	}
	if os.Geteuid() == 0 {
		return "/var/cache/medilab-webhooks", nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return o.DataDir, nil //nolint:nilerr // a user without a home keeps them beside the data
	}
	return filepath.Join(cache, "medilab-webhooks"), nil
}

// download fetches one version and puts it into home in one step, so that home is whole or absent.
//
// Of the library only this is wanted: its Start also initialises and runs a database, and deletes a
// data folder of another version. It has no call that only fetches, so Start gets a scratch folder
// for everything and a runtime folder that cannot be made (below a dangling link): it ends right
// after unpacking, and no folder of ours is ever known to it.
func download(ctx context.Context, o Options, version embedded.PostgresVersion, cache, home string) error {
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
	unpacked := filepath.Join(scratch, "unpacked")
	wall := filepath.Join(scratch, "wall")
	if err := os.Symlink(filepath.Join(scratch, "nothing"), wall); err != nil {
		return errors.Join(err, os.RemoveAll(scratch))
	}
	port, err := o.freePort() // it insists on a free port that it will not use
	if err != nil {
		return errors.Join(err, os.RemoveAll(scratch))
	}
	config := embedded.DefaultConfig().
		Version(version).
		Port(uint32(port)).
		CachePath(filepath.Join(scratch, "archive")).
		BinariesPath(unpacked).
		RuntimePath(filepath.Join(wall, "runtime")).
		DataPath(filepath.Join(wall, "data")).
		Logger(nil)
	if o.Repository != "" {
		config = config.BinaryRepositoryURL(o.Repository)
	}
	// The library takes no context: when ctx ends we stop waiting, and the download ends by itself,
	// in its scratch folder, which is then removed.
	ended := make(chan error, 1)
	go func() {
		err := embedded.NewDatabase(config).Start()
		if hasBinaries(filepath.Join(unpacked, "bin")) {
			err = install(unpacked, home)
		}
		ended <- errors.Join(err, os.RemoveAll(scratch))
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// install moves unpacked binaries to their place; another process may have been faster. Whatever our
// umask is, the account that runs Postgres may read and run them.
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

// freePort asks the kernel for a loopback port that nobody uses at this moment.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}
