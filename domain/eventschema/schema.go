// Package eventschema checks event data against JSON Schemas (draft 2020-12), at a cost that
// is bounded whatever the schema and the data.
package eventschema

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/medilab/webhooks/domain/strictjson"
)

const (
	maxBytes   = 64 << 10 // of a schema
	maxProgram = 10_000   // instructions of a regular expression
	// budget bounds the steps of one check, of which each takes about as long as to check
	// stepWork bytes of JSON.
	budget, stepWork = 1 << 18, 128
)

// ErrTooCostly says that a check was given up.
var ErrTooCostly = errors.New("is too costly to check against the schema of its type")

// Schema is a compiled schema, safe for concurrent use. Each check has a copy to itself, as
// the library's hooks do not know which check they are called by.
type Schema struct{ idle sync.Pool } // of *checker

// Compile returns the schema, or what is wrong with it. It refers to nothing outside of itself.
func Compile(source []byte) (*Schema, error) {
	if len(source) > maxBytes {
		return nil, fmt.Errorf("has more than %d KB", maxBytes>>10)
	}
	first, err := newChecker(source)
	if err != nil {
		return nil, err
	}
	s := &Schema{idle: sync.Pool{New: func() any {
		another, _ := newChecker(source) // it compiled before
		return another
	}}}
	s.idle.Put(first)
	return s, nil
}

// Check returns the violations of data, a JSON value that has passed strictjson.Check. It
// calls spend before each part of its work; an error of spend ends the check and is
// returned. Another error is ErrTooCostly.
func (s *Schema) Check(data []byte, spend func(work int) error) (found []Violation, err error) {
	const decoding = 4 // times as much work as checking it
	if err := spend(decoding * len(data)); err != nil {
		return nil, err
	}
	if err := measure(data); err != nil {
		return nil, err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	c := s.idle.Get().(*checker)
	defer s.idle.Put(c)
	return c.check(value, spend)
}

func (c *checker) check(value any, spend func(work int) error) (found []Violation, err error) {
	c.left, c.spend = budget, spend
	defer func() {
		switch stopped := recover().(type) {
		case nil:
		case stop:
			found, err = nil, stopped.err
		default:
			panic(stopped)
		}
	}()
	return c.names.violations(value, c.compiled.Validate(value)), nil
}

// checker is a compiled schema and the state of the check that it is used by.
type checker struct {
	compiled *jsonschema.Schema
	names    names
	member   int // steps for each member of an object or array: it may be compared with an enum
	left     int // steps
	spend    func(work int) error
}

// stop is the panic that ends a check.
type stop struct{ err error }

func (c *checker) step(n int) {
	if c.left -= n; c.left < 0 {
		panic(stop{ErrTooCostly})
	}
	if err := c.spend(n * stepWork); err != nil {
		panic(stop{err})
	}
}

const root = "medilab:///schema"

func newChecker(source []byte) (*checker, error) {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(source))
	if err != nil {
		return nil, err
	}
	c := &checker{names: names{}, member: 1}
	var schemas []*jsonschema.Schema
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.UseLoader(noLoader{})
	compiler.AssertFormat()
	compiler.UseRegexpEngine(c.expression)
	compiler.AssertVocabs()
	compiler.RegisterVocabulary(&jsonschema.Vocabulary{URL: root, Compile: func(ctx *jsonschema.CompilerContext, _ map[string]any) (jsonschema.SchemaExt, error) {
		schemas = append(schemas, ctx.Enqueue(nil)) // the one that is being compiled
		return nil, nil
	}})
	if err := compiler.AddResource(root, document); err != nil {
		return nil, err
	}
	if c.compiled, err = compiler.Compile(root); err != nil {
		return nil, readable(err)
	}
	for _, s := range schemas {
		if s.Enum != nil {
			c.member = max(c.member, 1+len(s.Enum.Values)/16)
		}
		s.Format = c.counted(s.Format)
		for name := range s.Properties {
			c.names[name] = true
		}
		for _, name := range s.Required {
			c.names[name] = true
		}
	}
	return c, nil
}

// counted returns a format that counts the step of its schema, which the library looks at
// before what takes long, and then does as the one it replaces.
func (c *checker) counted(format *jsonschema.Format) *jsonschema.Format {
	counted := &jsonschema.Format{Validate: func(v any) error {
		const visit = 4
		switch v := v.(type) {
		case map[string]any:
			c.step(visit + len(v)*c.member)
		case []any:
			c.step(visit + len(v)*c.member)
		case string:
			c.step(visit + len(v)/stepWork)
		default:
			c.step(visit)
		}
		if format == nil {
			return nil
		}
		return format.Validate(v)
	}}
	if format != nil {
		counted.Name = format.Name
	}
	return counted
}

// expression compiles an RE2 expression that counts its steps.
func (c *checker) expression(source string) (jsonschema.Regexp, error) {
	tree, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil || len(program.Inst) > maxProgram {
		return nil, errors.New("the regular expression is too large")
	}
	compiled, err := regexp.Compile(source)
	return countedExpression{compiled, c, len(program.Inst)}, err
}

type countedExpression struct {
	*regexp.Regexp
	checker *checker
	program int
}

func (e countedExpression) MatchString(text string) bool {
	const perStep = 16 // instructions on a byte
	e.checker.step(1 + len(text)*e.program/perStep)
	return e.Regexp.MatchString(text)
}

// noLoader refuses every document outside of the schema.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("%s is outside of the schema: refer to what is in it only", url)
}

// readable returns the first cause of an error of the compiler, with its place in the schema.
func readable(err error) error {
	invalid, ok := errors.AsType[*jsonschema.SchemaValidationError](err)
	if !ok {
		return errors.New(strings.ReplaceAll(err.Error(), root+"#", "#"))
	}
	if found := (names{}).violations(nil, invalid.Err); len(found) > 0 {
		return errors.New(strings.TrimPrefix(found[0].Path+" "+found[0].Message, "."))
	}
	return invalid.Err
}

// measure refuses data of more values than a check may take steps, and numbers that take
// long to compare.
func measure(data []byte) error {
	const maxDigits, maxExponent = 1000, len("E-308")
	values := 0
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case c == '"':
			i = strictjson.SkipValue(data, i) - 1
		case c == ',' || c == '[' || c == '{':
			values++
		case c == '-' || '0' <= c && c <= '9':
			number := data[i:strictjson.SkipValue(data, i)]
			exponent := bytes.IndexAny(number, "eE")
			if len(number) > maxDigits || exponent >= 0 && len(number)-exponent > maxExponent {
				return ErrTooCostly
			}
			i += len(number) - 1
		}
	}
	if values > budget {
		return ErrTooCostly
	}
	return nil
}
