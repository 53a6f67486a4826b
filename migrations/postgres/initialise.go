package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	// roleName and databaseName are those of the embedded database.
	roleName     = "medilab"
	databaseName = "medilab"
	// passwordFile is in the cluster's directory, so that the two are made, moved and lost together.
	passwordFile = "medilab.password"
	// scratchPrefix names directories of an initialisation under way.
	scratchPrefix = "postgres.init-"
)

// clusterMajor returns the major version that made the database, or 0 if there is none yet.
func clusterMajor(clusterDir string) (int, error) {
	content, err := os.ReadFile(filepath.Join(clusterDir, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		entries, err := os.ReadDir(clusterDir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, fmt.Errorf("look at %s: %w", clusterDir, err)
		}
		if len(entries) > 0 {
			return 0, fmt.Errorf("%s is not empty and holds no Postgres database (no PG_VERSION); nothing was changed: restore it, move it away, or set MEDILAB_DATA_DIR to another folder", clusterDir)
		}
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the version of the database: %w", err)
	}
	text, _, _ := strings.Cut(strings.TrimSpace(string(content)), ".")
	major, err := strconv.Atoi(text)
	if err != nil || major <= 0 {
		return 0, fmt.Errorf("%s/PG_VERSION says %q, which is no version of Postgres; nothing was changed: restore the folder from a backup, or set MEDILAB_DATA_DIR to another one", clusterDir, text)
	}
	return major, nil
}

// initialise creates the database. It is made in a scratch directory and moved into place when it is
// complete and on disk, so that no kill leaves a half-made one.
func (c *cluster) initialise(ctx context.Context) error {
	c.Log.Info("initialising the database, this takes some seconds", "folder", c.clusterDir(), "version", c.binaries.version)
	scratch, err := os.MkdirTemp(c.DataDir, scratchPrefix)
	if err == nil {
		err = c.initialiseIn(ctx, scratch)
		if removed := os.RemoveAll(scratch); err == nil {
			err = removed
		}
	}
	return c.explain("initialise the database", err)
}

func (c *cluster) initialiseIn(ctx context.Context, scratch string) error {
	password := filepath.Join(scratch, "password")
	if err := os.WriteFile(password, []byte(rand.Text()+rand.Text()), 0o600); err != nil {
		return err
	}
	if err := c.account.give(scratch); err != nil {
		return err
	}
	cmd := c.account.command(c.binaries.initdb())
	paths, done, err := c.account.passDirFD(cmd, scratch)
	if err != nil {
		return err
	}
	defer done()
	cmd.Args = append(cmd.Args,
		"--pgdata="+filepath.Join(paths[0], "data"),
		"--pwfile="+filepath.Join(paths[0], "password"),
		"--username="+roleName,
		"--encoding=UTF8", "--locale=C",
		"--auth=scram-sha-256", // on top of a directory that is closed to others
	)
	if c.Disposable {
		cmd.Args = append(cmd.Args, "--no-sync")
	}
	if out, err := combinedOutput(ctx, cmd); ctx.Err() != nil {
		return ctx.Err()
	} else if err != nil {
		return fmt.Errorf("initdb: %s (%w)", firstComplaint(out), err)
	}

	data := filepath.Join(scratch, "data")
	if err := os.Rename(password, filepath.Join(data, passwordFile)); err != nil {
		return err
	}
	// An empty directory of that name may be in the way; one with content was refused before.
	if err := os.Remove(c.clusterDir()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := errors.Join(syncPath(filepath.Join(data, passwordFile)), syncPath(data)); err != nil {
		return err
	}
	if err := os.Rename(data, c.clusterDir()); err != nil {
		return err
	}
	return syncPath(c.DataDir)
}

// removeScratch deletes the leavings of killed initialisations. Only the holder of the data
// directory's lock may call it.
func (o Options) removeScratch() error {
	entries, err := os.ReadDir(o.DataDir)
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), scratchPrefix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(o.DataDir, entry.Name())))
		}
	}
	return o.explain("remove a scratch folder", err)
}

func readPassword(clusterDir string) (string, error) {
	content, err := os.ReadFile(filepath.Join(clusterDir, passwordFile))
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("the database in %s has lost its password file %s: restore the file from a backup, or use the database through DATABASE_URL", clusterDir, passwordFile)
	}
	if err != nil {
		return "", fmt.Errorf("read the password of the database: %w", err)
	}
	return strings.TrimSpace(string(content)), nil
}

// syncPath flushes a file or directory to disk.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// explain adds to an error of the file system, or of a program that met one, what to do about it.
// It returns nil for nil.
func (o Options) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	has := func(code syscall.Errno, message string) bool {
		return errors.Is(err, code) || strings.Contains(text, message)
	}
	switch {
	case has(syscall.ENOSPC, "No space left on device"), has(syscall.EDQUOT, "Disk quota exceeded"):
		return fmt.Errorf("%s: the disk of %s is full: free some space (a new database needs 100 MB), or set MEDILAB_DATA_DIR to a folder on another disk: %w", doing, o.DataDir, err)
	case has(syscall.EROFS, "Read-only file system"):
		return fmt.Errorf("%s: %s is on a read-only file system: set MEDILAB_DATA_DIR to a folder that can be written: %w", doing, o.DataDir, err)
	case has(syscall.EACCES, "Permission denied"):
		return fmt.Errorf("%s: %s cannot be written by this user: fix its permissions, or set MEDILAB_DATA_DIR to a folder that can be written: %w", doing, o.DataDir, err)
	case os.Geteuid() == 0 && has(syscall.EPERM, "Operation not permitted"):
		return fmt.Errorf("%s: this process may not do that, though it is root (a container without the capabilities SETUID, SETGID and CHOWN?): run as an ordinary user, or set DATABASE_URL: %w", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
