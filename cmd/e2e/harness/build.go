// Package harness starts the built product as its users do, for the tests that drive it from
// outside: over HTTP and its command line, with nothing of it replaced.
package harness

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// Program returns the path of the product, which is built once for all test packages.
func Program(t testing.TB) string {
	t.Helper()
	program, err := product()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

var product = sync.OnceValues(func() (string, error) { return Build("medilab-webhooks") })

// Build builds the product under a name, with further arguments of go build. What another test
// process has built of the same sources is used again.
func Build(name string, args ...string) (program string, err error) {
	dir, err := BuildDir()
	if err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close() //nolint:errcheck // closing is what unlocks, nothing is written
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("wait for another build: %w", err)
	}
	program = filepath.Join(dir, name)
	cmd := exec.Command("go", append(append([]string{"build", "-o", program}, args...), "github.com/medilab/webhooks/cmd/medilab-webhooks")...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build the product: %w", err)
	}
	return program, nil
}

// BuildDir returns the folder that Build builds in, bin/test of the module.
func BuildDir() (string, error) {
	root, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		if root == filepath.Dir(root) {
			return "", fmt.Errorf("no go.mod above the working directory")
		}
		root = filepath.Dir(root)
	}
	dir := filepath.Join(root, "bin", "test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, dependOnSources(root)
}

// dependOnSources looks at what the product is built from: go test then knows that its results
// depend on it, and does not take old ones from its cache.
func dependOnSources(root string) error {
	for _, folder := range []string{"cmd/medilab-webhooks", "commands", "domain", "eventstore", "http", "migrations", "projections"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(_ string, _ fs.DirEntry, err error) error { return err })
		if err != nil {
			return err
		}
	}
	return nil
}
