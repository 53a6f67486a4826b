package eventschema

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/medilab/webhooks/domain/strictjson"
)

// Violation is a place in the data that breaks the schema.
type Violation struct {
	Path    string // below the value: ".visit.services[0].code"; empty: the value itself
	Public  string // Path with * for names that are not the schema's, but the data's own
	Message string // the rest of a sentence that begins with the place; it shows nothing of the data
}

const maxViolations = 20

// names are the names of properties in a schema.
type names map[string]bool

// violations returns what an error of the library says about the value, in the order of their
// paths.
func (n names) violations(value any, err error) []Violation {
	invalid, ok := err.(*jsonschema.ValidationError) //nolint:errorlint // Validate returns it as it is
	if !ok {
		return nil
	}
	var found []Violation
	for _, b := range collect(nil, invalid) {
		found = append(found, Violation{pathOf(b.place), pathOf(n.public(value, b.place)), b.rule})
	}
	slices.SortFunc(found, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(found)
}

// public returns the place in the value with * for names that are not in the schema.
func (n names) public(value any, place []string) []string {
	place = slices.Clone(place)
	for i, token := range place {
		switch in := value.(type) {
		case []any:
			if index, err := strconv.Atoi(token); err == nil && index < len(in) {
				value = in[index]
				continue
			}
		case map[string]any:
			if value = in[token]; n[token] {
				continue
			}
		}
		place[i] = "*"
	}
	return place
}

// broken is a rule that is broken, and where.
type broken struct {
	place []string
	rule  string
}

func collect(found []broken, e *jsonschema.ValidationError) []broken {
	if len(found) >= maxViolations {
		return found
	}
	add := func(rule string, name ...string) {
		found = append(found, broken{slices.Concat(e.InstanceLocation, name), rule})
	}
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			add("is required", name)
		}
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			add("is not allowed", name)
		}
	case *kind.Schema, *kind.Group, *kind.AllOf, *kind.Reference:
		for _, cause := range e.Causes {
			found = collect(found, cause)
		}
	default:
		add(describe(e.ErrorKind))
	}
	return found[:min(len(found), maxViolations)]
}

// describe returns the rule that was broken, with nothing of the data.
func describe(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Type:
		return "must be of type " + strings.Join(k.Want, " or ")
	case *kind.Format:
		return "must have the format " + k.Want
	case *kind.FalseSchema:
		return "is not allowed"
	}
	return "breaks the rule " + strings.Join(k.KeywordPath(), "/") + " of its schema"
}

func pathOf(tokens []string) string {
	var path strings.Builder
	for _, token := range tokens {
		if strings.Trim(token, "0123456789") == "" && token != "" {
			path.WriteString("[" + token + "]")
		} else {
			path.WriteString("." + strictjson.Shorten(token, 100))
		}
	}
	return path.String()
}
