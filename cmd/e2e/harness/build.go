// Package harness starts the built product as its users do, for the tests that drive it from
// outside: over HTTP and its command line, with nothing of it replaced.
package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Main is the TestMain of a package: run gets a folder that is gone afterwards, and gives the exit
// code of the tests.
func Main(run func(dir string) (code int, err error)) {
	code, err := inFolder(run)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func inFolder(run func(dir string) (int, error)) (code int, err error) {
	dir, err := os.MkdirTemp("", "medilab-built-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return run(dir)
}

// Build builds the product into a file of the folder, with further arguments of go build.
func Build(dir, name string, args ...string) (program string, err error) {
	if err := dependOnSources(); err != nil {
		return "", err
	}
	program = filepath.Join(dir, name)
	cmd := exec.Command("go", append(append([]string{"build", "-o", program}, args...), "github.com/medilab/webhooks/cmd/medilab-webhooks")...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build the product: %w", err)
	}
	return program, nil
}

// dependOnSources looks at what the product is built from: go test then knows that its results
// depend on it, and does not take old ones from its cache.
func dependOnSources() error {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the product's sources: %w", err)
	}
	root := strings.TrimSpace(string(out))
	for _, folder := range []string{"cmd/medilab-webhooks", "commands", "domain", "eventstore", "http", "migrations", "projections"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(_ string, _ fs.DirEntry, err error) error { return err })
		if err != nil {
			return err
		}
	}
	_, err = os.Stat(filepath.Join(root, "go.mod"))
	return err
}
