package postgres

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

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
