// Package architecture holds no code, only the test that the folders keep to
// their directions.
package architecture

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/medilab/webhooks"

// folder says what the packages of a folder, itself and all below it, may import.
type folder struct {
	inside  []string // folders of this module; its own is always allowed
	outside []string // modules; nil: any
}

// anything marks the one place that knows all.
const anything = "*"

// folders are the directions: what is above another knows nothing of it. A package
// belongs to the longest name that it is in; one that is in none is refused, so
// that a new folder gets its rule with its first file.
var folders = map[string]folder{
	"eventstore/cpulimit":         {inside: []string{}, outside: []string{}},
	"domain":                      {outside: []string{"github.com/google/uuid"}},
	"domain/envelope":             {inside: []string{}, outside: []string{}},
	"domain/filter":               {inside: []string{"domain/strictjson", "domain/suggest"}, outside: []string{}},
	"domain/eventschema":          {inside: []string{"domain/strictjson"}, outside: []string{"github.com/santhosh-tekuri/jsonschema/v6"}},
	"domain/strictjson":           {outside: []string{"github.com/go-json-experiment/json"}},
	"eventstore":                  {inside: []string{"eventstore/cpulimit"}, outside: []string{"github.com/jackc/pgx/v5", "golang.org/x/sync", "github.com/ThreeDotsLabs/watermill", "github.com/ThreeDotsLabs/watermill-sql/v3"}},
	"commands":                    {inside: []string{"eventstore/cpulimit", "domain", "eventstore"}},
	"commands/emit":               {outside: []string{"github.com/jackc/pgx/v5/pgconn", "github.com/google/uuid"}}, // the clinic imports it
	"commands/vault":              {inside: []string{"commands", "domain", "eventstore", "migrations/filelock"}},
	"commands/mail":               {inside: []string{"commands", "domain", "eventstore"}},
	"commands/sources":            {inside: []string{"commands", "commands/outbox", "domain", "eventstore"}},
	"commands/saga":               {inside: []string{"commands", "domain", "eventstore"}},
	"projections":                 {inside: []string{"eventstore/cpulimit", "domain", "eventstore"}},
	"http":                        {inside: []string{"commands", "eventstore/cpulimit", "projections", "domain"}},
	"http/fastpath":               {inside: []string{}},
	"http/sender":                 {inside: []string{"commands", "domain"}},
	"http/texts":                  {inside: []string{}, outside: []string{"github.com/go-json-experiment/json", "golang.org/x/text"}},
	"migrations":                  {inside: []string{"migrations/filelock"}},
	"migrations/testdb":           {inside: []string{"migrations", testbed}},
	"migrations/filelock":         {inside: []string{}, outside: []string{}},
	"cmd/medilab-webhooks":        {inside: []string{anything}},
	"cmd/bench":                   {inside: []string{"domain", "eventstore", "migrations", testbed}},   // it measures the product from outside, and fills logs
	"cmd/demo":                    {inside: []string{"commands/emit", "migrations/postgres", testbed}}, // a clinic, and the product from outside
	harness:                       {inside: []string{testbed}},
	"commands/emit/remote":        {inside: []string{}, outside: []string{"github.com/google/uuid"}}, // services elsewhere import it
	"commands/emit/emitwatermill": {inside: []string{"commands/emit"}, outside: []string{"github.com/ThreeDotsLabs/watermill/message", "github.com/google/uuid"}},
	testbed:                       {inside: []string{}},
	testbed + "/patroni":          {inside: []string{testbed}},
	"cmd/cluster":                 {inside: []string{testbed, testbed + "/patroni"}},
}

const (
	// harness starts the built product for tests, which alone may import it.
	harness = "cmd/e2e/harness"
	// testbed is what the harness and the bench share.
	testbed = "cmd/testbed"
)

// testFolders are what tests may import besides.
var testFolders = map[string][]string{
	"domain":            {},
	"domain/envelope":   {},
	"domain/filter":     {"domain/strictjson"},
	"domain/strictjson": {},
	"eventstore":        {"migrations/testdb"},
}

// source is a file of this module.
type source struct {
	name string // with slashes, from the module's root
	file *ast.File
}

func (s source) isTest() bool { return strings.HasSuffix(s.name, "_test.go") }

func (s source) imports() []string {
	paths := make([]string, len(s.file.Imports))
	for i, spec := range s.file.Imports {
		paths[i], _ = strconv.Unquote(spec.Path.Value) // the parser has unquoted it already
	}
	return paths
}

// sources parses every Go file of the module.
func sources(t *testing.T) []source {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	var all []source
	err = fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && strings.HasPrefix(entry.Name(), "."), name == "data", name == "bin":
			return fs.SkipDir
		case entry.IsDir() && name != "." && rootOfModule(filepath.Join(root, name)):
			return fs.SkipDir // it is not of this one
		case entry.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.SkipObjectResolution)
		all = append(all, source{name, file})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 100 {
		t.Fatalf("found %d files, which cannot be all", len(all))
	}
	return all
}

// rootOfModule reports whether the folder is the root of a module.
func rootOfModule(folder string) bool {
	_, err := os.Stat(filepath.Join(folder, "go.mod"))
	return err == nil
}

func TestImportsKeepTheirDirections(t *testing.T) {
	for _, s := range sources(t) {
		home, rule, ok := ruleOf(path.Dir(s.name))
		if !ok && !s.isTest() {
			t.Errorf("%s: no rule says what this folder may import; add one to folders", s.name)
			continue
		}
		for _, imported := range s.imports() {
			inside, ours := strings.CutPrefix(imported, module+"/")
			switch {
			case (within(inside, harness) || within(inside, testbed)) && (s.isTest() || rule.allowsInside(home, inside)):
			case ours && within(inside, "cmd"):
				t.Errorf("%s imports %s: nobody imports a command", s.name, inside)
			case s.isTest():
				allowed, strict := testFolders[home]
				if ours && strict && !within(inside, home) && !withinAny(inside, allowed) {
					t.Errorf("%s imports %s: tests of %s may not", s.name, inside, home)
				}
			case ours && !rule.allowsInside(home, inside):
				t.Errorf("%s imports %s: %s may import %q", s.name, inside, home, rule.inside)
			case !ours && isModule(imported) && rule.outside != nil && !withinAny(imported, rule.outside):
				t.Errorf("%s imports %s: %s may import %q", s.name, imported, home, rule.outside)
			}
		}
	}
}

func ruleOf(dir string) (home string, rule folder, ok bool) {
	for home = dir; home != "."; home = path.Dir(home) {
		if rule, ok = folders[home]; ok {
			return home, rule, true
		}
	}
	return "", folder{}, false
}

func (f folder) allowsInside(home, imported string) bool {
	if imported == "migrations/testdb" || within(imported, "migrations/testdb") {
		return within(home, "migrations") // databases for tests are for tests
	}
	return within(imported, home) || withinAny(imported, f.inside)
}

func within(dir, folder string) bool {
	return folder == anything || dir == folder || strings.HasPrefix(dir, folder+"/")
}

func withinAny(dir string, folders []string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool { return within(dir, folder) })
}

// isModule tells other modules from the standard library, whose paths begin with no host.
func isModule(imported string) bool {
	host, _, _ := strings.Cut(imported, "/")
	return strings.Contains(host, ".")
}

// impure are packages and functions by which the domain would depend on more than
// its arguments.
var impure = []string{
	"bufio", "context", "crypto/rand", "database/sql", "io", "io/fs", "log", "math/rand", "math/rand/v2", "net", "net/http", "os", "os/exec",
	"path/filepath", "runtime", "syscall",
	"time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.AfterFunc", "time.Tick", "time.NewTimer", "time.NewTicker",
	"uuid.New", "uuid.NewString", "uuid.NewRandom", "uuid.NewUUID", "uuid.NewV6", "uuid.NewV7",
}

func TestDomainIsPure(t *testing.T) {
	for _, s := range sources(t) {
		if s.isTest() || !within(path.Dir(s.name), "domain") {
			continue
		}
		for _, imported := range s.imports() {
			if slices.Contains(impure, imported) {
				t.Errorf("%s imports %s: the domain has no clock, I/O or randomness", s.name, imported)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if selector, ok := n.(*ast.SelectorExpr); ok {
				if of, ok := selector.X.(*ast.Ident); ok && slices.Contains(impure, of.Name+"."+selector.Sel.Name) {
					t.Errorf("%s uses %s.%s: the domain has no clock, I/O or randomness", s.name, of.Name, selector.Sel.Name)
				}
			}
			return true
		})
	}
}
