package security

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/licenses.md anew")

const licensesFile = "../../docs/licenses.md"

// kinds are the licences that the product may carry, by words that only they have.
var kinds = []struct{ name, words string }{
	{"Apache-2.0", "Apache License Version 2.0"},
	{"MPL-2.0", "Mozilla Public License"},
	{"ISC", "Permission to use, copy, modify, and/or distribute this software for any purpose"},
	{"MIT", "Permission is hereby granted, free of charge"},
	{"BSD-3-Clause", "Neither the name"},
	{"BSD-3-Clause", "names of its contributors may"},
	{"BSD-2-Clause", "Redistributions in binary form must reproduce"},
	{"Public domain", "public domain"},
}

// licenseOf reads the licence in the folder of a module.
func licenseOf(t *testing.T, dir string) (kind, file string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`(?i)^(licen[cs]e|copying)(\..*)?$`)
	for _, entry := range files {
		if entry.IsDir() || !named.MatchString(entry.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		return kindOf(string(text)), entry.Name()
	}
	return "", ""
}

func kindOf(text string) string {
	text = strings.ToLower(strings.Join(strings.Fields(text), " "))
	for _, kind := range kinds {
		if strings.Contains(text, strings.ToLower(kind.words)) {
			return kind.name
		}
	}
	return ""
}

// What the product is made of is listed with its licences, each of which is one
// that we may carry; the list is as the modules are.
func TestLicensesAreListed(t *testing.T) {
	type module struct {
		Path, Version, Dir string
		Main               bool
	}
	list := exec.Command("go", "list", "-deps", "-json=Module", "../medilab-webhooks", "../../commands/emit/...")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ Module *module }
		err := decoder.Decode(&p)
		if err == io.EOF { //nolint:errorlint // a Decoder's own word
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		m := p.Module
		if m == nil || m.Main {
			continue
		}
		kind, file := licenseOf(t, m.Dir)
		if kind == "" {
			t.Errorf("%s %s: no licence that we know in %q", m.Path, m.Version, file)
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | %s |", m.Path, m.Version, kind))
	}
	vendored, err := filepath.Glob("../../http/*/assets/vendor/*.LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	vendored = append(vendored, "../../cmd/e2e/harness/browser/testdata/axe-core.LICENSE") // tests alone use it
	for _, path := range vendored {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if kindOf(string(text)) == "" {
			t.Errorf("%s: no licence that we know", path)
		}
		rows = append(rows, fmt.Sprintf("| %s | in %s | %s |", strings.TrimSuffix(filepath.Base(path), ".LICENSE"), filepath.ToSlash(filepath.Dir(path)[len("../../"):]), kindOf(string(text))))
	}
	slices.Sort(rows)
	want := "# Licences\n\nWhat the binary is made of. `go test ./cmd/security -run Licenses -update` writes this list, and the test keeps it.\n\n| what | version | licence |\n| --- | --- | --- |\n" +
		strings.Join(slices.Compact(rows), "\n") + "\n\nThe embedded Postgres, where none is found on the machine, is fetched at the first start under the PostgreSQL Licence.\n"
	if *update {
		if err := os.WriteFile(licensesFile, []byte(want), 0o644); err != nil { //nolint:gosec // it is for everybody
			t.Fatal(err)
		}
	}
	if is, err := os.ReadFile(licensesFile); err != nil || string(is) != want {
		t.Errorf("docs/licenses.md is not current: run the test with -update (%v)", err)
	}
}
