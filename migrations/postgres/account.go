package postgres

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the user who runs Postgres, which refuses to run as root. The zero account is ours.
type account struct {
	name string
	cred *syscall.Credential
}

// chooseAccount returns our own account unless we are root; then the owner of the database if there
// is one already, else the machine's postgres or nobody. Without root it refuses another user's
// database: we can neither read it nor become them.
func chooseAccount(clusterDir string) (account, error) {
	var info syscall.Stat_t
	err := syscall.Stat(clusterDir, &info)
	if euid := os.Geteuid(); euid != 0 {
		switch {
		case errors.Is(err, syscall.ENOENT):
			return account{}, nil
		case err != nil:
			return account{}, fmt.Errorf("look at %s: %w", clusterDir, err)
		case int(info.Uid) != euid:
			return account{}, fmt.Errorf("the database in %s belongs to user id %d, not to us (%d): it was made by root or another user; run as that user, or chown -R the folder", clusterDir, info.Uid, euid)
		}
		return account{}, nil
	}
	if err == nil && info.Uid != 0 {
		return account{
			name: strconv.FormatUint(uint64(info.Uid), 10),
			cred: &syscall.Credential{Uid: info.Uid, Gid: info.Gid},
		}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(found.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(found.Gid, 10, 32)
		if uidErr == nil && gidErr == nil && uid != 0 {
			return account{name: name, cred: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
		}
	}
	return account{}, errors.New("Postgres does not run as root, and this machine has neither a user postgres nor nobody: add one (useradd --system postgres), or run as another user")
}

// give makes the account the owner of a file or directory and everything in it.
func (a account) give(path string) error {
	if a.cred == nil {
		return nil
	}
	return filepath.WalkDir(path, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(a.cred.Uid), int(a.cred.Gid))
	})
}

// command prepares a program to run as the account, in an environment that cannot change what
// Postgres prints or does.
func (a account) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	if libraries := os.Getenv("LD_LIBRARY_PATH"); libraries != "" {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+libraries)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// A session of its own: a Ctrl-C on our terminal is ours to handle, and must not stop the
		// database during a shutdown that still writes to it.
		Setsid:     true,
		Credential: a.cred,
	}
	return cmd
}
