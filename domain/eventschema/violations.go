package eventschema

import (
	"cmp"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/medilab/webhooks/domain/strictjson"
)

// Violation is a place in the data that breaks the schema.
type Violation struct {
	Path    string // below the value: ".visit.services[0].code"; empty: the value itself
	Message string // the rest of a sentence that begins with the place; it shows nothing of the data
}

const maxViolations = 20

// violations returns what an error of the library says, in the order of their paths.
func violations(err error) []Violation {
	invalid, ok := err.(*jsonschema.ValidationError) //nolint:errorlint // Validate returns it as it is
	if !ok {
		return nil
	}
	found := collect(nil, invalid)
	slices.SortFunc(found, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(found)
}

func collect(found []Violation, e *jsonschema.ValidationError) []Violation {
	if len(found) >= maxViolations {
		return found
	}
	at := pathOf(e.InstanceLocation)
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			found = append(found, Violation{at + pathOf([]string{name}), "is required"})
		}
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			found = append(found, Violation{at + pathOf([]string{name}), "is not allowed"})
		}
	case *kind.Schema, *kind.Group, *kind.AllOf, *kind.Reference:
		for _, cause := range e.Causes {
			found = collect(found, cause)
		}
	default:
		found = append(found, Violation{at, describe(e.ErrorKind)})
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
