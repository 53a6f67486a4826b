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

// account is who runs Postgres, which refuses to run as root. The zero account is ourselves.
type account struct {
	name string
	cred *syscall.Credential
}

// chooseAccount decides who runs Postgres: ourselves, unless we are root; then the owner of the
// database when there is one already, else the account that the machine keeps for Postgres, else
// nobody.
func chooseAccount(cluster string) (account, error) {
	if os.Geteuid() != 0 {
		return account{}, checkOwner(cluster)
	}
	var info syscall.Stat_t
	if err := syscall.Stat(cluster, &info); err == nil && info.Uid != 0 {
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
		if uidErr != nil || gidErr != nil || uid == 0 {
			continue
		}
		return account{name: name, cred: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return account{}, errors.New("Postgres does not run as root, and this machine has neither a user postgres nor nobody: add one (useradd --system postgres), or run as another user")
}

// checkOwner refuses a database of somebody else: without root we can neither read it nor become them.
func checkOwner(cluster string) error {
	var info syscall.Stat_t
	err := syscall.Stat(cluster, &info)
	if errors.Is(err, syscall.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", cluster, err)
	}
	if int(info.Uid) != os.Geteuid() {
		return fmt.Errorf("the database in %s belongs to user id %d, not to us (%d): it was made by root or another user; run as that user, or chown -R the folder", cluster, info.Uid, os.Geteuid())
	}
	return nil
}

// give makes a folder, and what is in it, the account's own.
func (a account) give(dir string) error {
	if a.cred == nil {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(a.cred.Uid), int(a.cred.Gid))
	})
}

// command prepares a program to run as the account, in an environment that cannot change what
// Postgres says or does.
func (a account) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	if libraries := os.Getenv("LD_LIBRARY_PATH"); libraries != "" {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+libraries)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// Its own session: a Ctrl-C on our terminal is ours to handle, and must not stop the
		// database under a shutdown that still writes to it.
		Setsid:     true,
		Credential: a.cred,
	}
	return cmd
}
