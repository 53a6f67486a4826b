package postgres

import (
	"context"
	"crypto/rand"
	"encoding/hex"
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
	// passwordFile is in the database's folder, so that the two are made, moved and lost together.
	passwordFile = "medilab.password"
	// scratchPattern names folders of an initialisation under way.
	scratchPattern = "postgres.init-"
)

// clusterMajor reads the major version that made the database, 0 when there is none yet.
func clusterMajor(cluster string) (int, error) {
	content, err := os.ReadFile(filepath.Join(cluster, "PG_VERSION"))
	if errors.Is(err, os.ErrNotExist) {
		entries, err := os.ReadDir(cluster)
		if errors.Is(err, os.ErrNotExist) {
			return 0, nil
		}
		if err != nil {
			return 0, fmt.Errorf("look at %s: %w", cluster, err)
		}
		if len(entries) > 0 {
			return 0, fmt.Errorf("%s is not empty and holds no Postgres database (no PG_VERSION); nothing was changed: restore it, move it away, or set MEDILAB_DATA_DIR to another folder", cluster)
		}
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the version of the database: %w", err)
	}
	text, _, _ := strings.Cut(strings.TrimSpace(string(content)), ".")
	major, err := strconv.Atoi(text)
	if err != nil || major <= 0 {
		return 0, fmt.Errorf("%s/PG_VERSION says %q, which is no version of Postgres; nothing was changed: restore the folder from a backup, or set MEDILAB_DATA_DIR to another one", cluster, text)
	}
	return major, nil
}

// initialise makes the database. It is made in a scratch folder and moved to its place when it is
// whole and on the disk, so a database that exists is never half made, whenever we were killed.
func initialise(ctx context.Context, o Options, a account, b binaries) (err error) {
	o.Log.Info("initialising the database, this takes some seconds", "folder", o.cluster(), "version", b.version)
	scratch, err := os.MkdirTemp(o.DataDir, scratchPattern)
	if err != nil {
		return o.explain("initialise the database", err)
	}
	defer func() {
		if removeErr := os.RemoveAll(scratch); removeErr != nil && err == nil {
			err = o.explain("remove a scratch folder", removeErr)
		}
	}()
	var secret [32]byte
	rand.Read(secret[:]) //nolint:errcheck // it never fails, see crypto/rand
	password := filepath.Join(scratch, "password")
	if err := os.WriteFile(password, []byte(hex.EncodeToString(secret[:])), 0o600); err != nil {
		return o.explain("initialise the database", err)
	}
	if err := a.give(scratch); err != nil {
		return o.explain("initialise the database", err)
	}

	cmd := a.command(b.initdb())
	names, done, err := a.lend(cmd, scratch)
	if err != nil {
		return o.explain("initialise the database", err)
	}
	defer done()
	cmd.Args = append(cmd.Args,
		"--pgdata="+filepath.Join(names[0], "data"),
		"--pwfile="+filepath.Join(names[0], "password"),
		"--username="+roleName,
		"--encoding=UTF8", "--locale=C",
		// The folder is closed to others already; the password stands behind it.
		"--auth=scram-sha-256",
	)
	if o.Disposable {
		cmd.Args = append(cmd.Args, "--no-sync")
	}
	if out, err := complete(ctx, cmd); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("initialise the database: %w", ctx.Err())
		}
		return o.explain("initialise the database", fmt.Errorf("initdb: %s (%w)", firstLine(out), err))
	}

	made := filepath.Join(scratch, "data")
	if err := os.Rename(password, filepath.Join(made, passwordFile)); err != nil {
		return o.explain("initialise the database", err)
	}
	// An empty folder of that name may stand in the way; one with content was refused before.
	if err := os.Remove(o.cluster()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return o.explain("initialise the database", err)
	}
	if err := errors.Join(syncPath(filepath.Join(made, passwordFile)), syncPath(made)); err != nil {
		return o.explain("initialise the database", err)
	}
	if err := os.Rename(made, o.cluster()); err != nil {
		return o.explain("initialise the database", err)
	}
	return o.explain("initialise the database", syncPath(o.DataDir))
}

// removeScratch deletes what initialisations left that were killed. Only whoever holds the lock of
// the data folder may call it.
func removeScratch(o Options) error {
	left, err := filepath.Glob(filepath.Join(globQuote(o.DataDir), scratchPattern+"*"))
	if err != nil {
		return fmt.Errorf("look for scratch folders: %w", err)
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return o.explain("remove a scratch folder", err)
		}
	}
	return nil
}

// globQuote makes a path match itself only.
func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func readPassword(cluster string) (string, error) {
	content, err := os.ReadFile(filepath.Join(cluster, passwordFile))
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("the database in %s has lost its password file %s: restore the file from a backup, or use the database through DATABASE_URL", cluster, passwordFile)
	}
	if err != nil {
		return "", fmt.Errorf("read the password of the database: %w", err)
	}
	return strings.TrimSpace(string(content)), nil
}

// syncPath puts a file or folder on the disk.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// explain adds to an error of the file system, or of a program that met one, what to do about it.
// It keeps nil.
func (o Options) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	has := func(code syscall.Errno, says string) bool {
		return errors.Is(err, code) || strings.Contains(text, says)
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
