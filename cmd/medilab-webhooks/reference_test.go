package main

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var inBackticks = regexp.MustCompile("`([^`]+)`")

// referenceRows returns the rows of the table below a heading of docs/reference.md, by each
// name in backticks in their first cell.
func referenceRows(t *testing.T, heading string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := map[string]string{}
	for line := range strings.Lines(section) {
		cells := strings.SplitN(line, "|", 3)
		if len(cells) < 3 || cells[0] != "" {
			continue
		}
		for _, name := range inBackticks.FindAllStringSubmatch(cells[1], -1) {
			rows[name[1]] = cells[2]
		}
	}
	if !found || len(rows) == 0 {
		t.Fatalf("docs/reference.md has no table under %q", heading)
	}
	return rows
}

func TestReferenceNamesEverySetting(t *testing.T) {
	rows := referenceRows(t, "Configuration")
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]bool{}
	name := regexp.MustCompile(`"(MEDILAB_[A-Z_]+|DATABASE_URL)"`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range name.FindAllStringSubmatch(string(source), -1) {
			read[match[1]] = true
		}
	}
	declared := map[string]bool{}
	for _, s := range slices.Concat(new(databaseOptions).table(), new(settings).table(), (&apiOptions{database: new(databaseOptions)}).readingTable()) {
		declared[s.env] = true
	}
	if !maps.Equal(declared, read) {
		t.Errorf("the tables of settings declare %v, and the sources name %v", declared, read)
	}
	for _, name := range slices.Sorted(maps.Keys(read)) {
		if _, ok := rows[name]; !ok {
			t.Errorf("%s is not in the table of settings", name)
		}
		t.Setenv(name, "")
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		if !read[name] {
			t.Errorf("docs/reference.md tells of %s, which nobody reads", name)
		}
	}

	serve, _, err := newRoot(io.Discard).Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\(?(?:environment )?(MEDILAB_[A-Z_]+)`)
	check := func(f *pflag.Flag) {
		match := named.FindStringSubmatch(f.Usage)
		if match == nil || f.DefValue == "" || f.DefValue == "false" {
			return
		}
		usual := strings.Replace(strings.Replace(f.DefValue, "m0s", "m", 1), "h0m", "h", 1) // 24h0m0s is 24h
		if !strings.Contains(rows[match[1]], "`"+usual+"`") {
			t.Errorf("the row of %s does not say that the default is `%s`: %s", match[1], usual, rows[match[1]])
		}
	}
	serve.Flags().VisitAll(check)
	serve.InheritedFlags().VisitAll(check)
}

func TestReferenceNamesEveryCommand(t *testing.T) {
	rows := referenceRows(t, "Commands")
	root := newRoot(io.Discard)
	root.InitDefaultHelpCmd()
	told := map[string]bool{}
	for text := range rows {
		c, _, err := root.Find(strings.Fields(text))
		if err != nil || !c.HasParent() {
			t.Errorf("docs/reference.md tells of the command %q, which is none", text)
			continue
		}
		told[c.CommandPath()] = true
	}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if c.HasParent() && !c.HasSubCommands() && !told[c.CommandPath()] {
			t.Errorf("%q is not in the table of commands", c.CommandPath())
		}
	}
	walk(root)
}

// The Russian page has the rows of the English one.
func TestReferenceInRussian(t *testing.T) {
	names := func(page string) []string {
		text, err := os.ReadFile("../../docs/" + page)
		if err != nil {
			t.Fatal(err)
		}
		cells := regexp.MustCompile("(?m)^\\| (`.*?) \\|").FindAllStringSubmatch(string(text), -1)
		var all []string
		for _, cell := range cells {
			all = append(all, cell[1])
		}
		return all
	}
	english, russian := names("reference.md"), names("reference.ru.md")
	if len(english) < 50 || !slices.Equal(english, russian) {
		t.Errorf("the pages have the rows\n%q\n%q", english, russian)
	}
}
