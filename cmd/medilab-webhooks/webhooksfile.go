package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"go.yaml.in/yaml/v4"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/suggest"
)

// webhooksFile is a file of webhooks: YAML, of which JSON is a part.
type webhooksFile struct {
	path     string
	root     *yaml.Node
	raw      bool // {env: NAME} stays
	tooLarge bool
	unset    []string // variables that it names and the environment lacks
	wrong    []string // what cannot be read, with its line, in the user's language
}

// readWebhooksFile returns the file and its list of webhooks as JSON, with the values of the
// variables in place.
func readWebhooksFile(path string, text []byte) (*webhooksFile, json.RawMessage, error) {
	f := &webhooksFile{path: path}
	var document yaml.Node
	if err := loadYAML(text, &document); err != nil {
		return nil, nil, fmt.Errorf("%s cannot be read: %w", path, err)
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return nil, nil, fmt.Errorf("%s must have `webhooks:`, a list", path)
	}
	f.root = document.Content[0]
	var list json.RawMessage
	for i := 0; i+1 < len(f.root.Content); i += 2 {
		key := f.root.Content[i]
		if key.Value == "webhooks" && list == nil {
			list = f.toJSON(f.root.Content[i+1])
			continue
		}
		f.refuse(key.Line, fmt.Sprintf("%q is not a field of the file%s", key.Value, suggest.DidYouMean(suggest.Nearest(key.Value, []string{"webhooks"}))))
	}
	if list == nil && len(f.wrong) == 0 {
		return nil, nil, fmt.Errorf("%s must have `webhooks:`, a list", path)
	}
	return f, list, nil
}

// loadYAML reads the one document of the text; none leaves the node as it is.
func loadYAML(text []byte, document *yaml.Node) error {
	loader, err := yaml.NewLoader(bytes.NewReader(text))
	if err == nil {
		err = loader.Load(document)
	}
	if err == nil {
		if err = loader.Load(new(yaml.Node)); err == nil {
			return errors.New("it holds several documents (---); keep one")
		}
	}
	wrong, ok := errors.AsType[*yaml.LoadError](err)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case ok && wrong.Mark.Line > 0:
		return fmt.Errorf("line %d: %s", wrong.Mark.Line, wrong.Message)
	}
	return err
}

// refuse notes a problem that is described in English.
func (f *webhooksFile) refuse(line int, problem string) { f.note(line, sayError(problem)) }

func (f *webhooksFile) note(line int, problem string) {
	f.wrong = append(f.wrong, fmt.Sprintf("%s:%d: %s", f.path, line, problem))
}

// refuseFields takes in what a server says of fields.
func (f *webhooksFile) refuseFields(fields []domain.FieldError) {
	for _, refused := range fields {
		line, field, webhook := f.at(refused.Field)
		if webhook != "" {
			webhook += ": "
		}
		f.note(line, webhook+cmp.Or(field, refused.Field)+" "+refused.Message)
	}
}

// toJSON returns a node as JSON.
func (f *webhooksFile) toJSON(n *yaml.Node) json.RawMessage {
	var b bytes.Buffer
	f.write(jsontext.NewEncoder(&b), n, nil)
	return b.Bytes()
}

// write writes a node as JSON. The path leads to it, by keys and list items.
func (f *webhooksFile) write(to *jsontext.Encoder, n *yaml.Node, path []string) {
	const deepest, largest = 64, 10 << 20
	switch {
	case len(path) > deepest || to.OutputOffset() > largest: // an alias of what it is in, say
		if !f.tooLarge {
			f.refuse(n.Line, "the file is too large, or an alias goes in circles")
		}
		f.tooLarge = true
		_ = to.WriteToken(jsontext.Null)
	case n.Kind == yaml.AliasNode:
		f.write(to, n.Alias, path)
	case n.Kind == yaml.SequenceNode:
		_ = to.WriteToken(jsontext.BeginArray)
		for _, item := range n.Content {
			f.write(to, item, append(slices.Clip(path), "[]"))
		}
		_ = to.WriteToken(jsontext.EndArray)
	case n.Kind == yaml.MappingNode && variable(n, path) != "" && !f.raw:
		name := variable(n, path)
		value := os.Getenv(name)
		if value == "" && !slices.Contains(f.unset, name) {
			f.unset = append(f.unset, name)
		}
		_ = to.WriteToken(jsontext.String(value))
	case n.Kind == yaml.MappingNode:
		_ = to.WriteToken(jsontext.BeginObject)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode || to.WriteToken(jsontext.String(key.Value)) != nil {
				f.refuse(key.Line, fmt.Sprintf("the key %q is there twice, or is no text", key.Value))
				continue
			}
			f.write(to, n.Content[i+1], append(slices.Clip(path), key.Value))
		}
		_ = to.WriteToken(jsontext.EndObject)
	default:
		f.writeScalar(to, n)
	}
}

// writeScalar writes a value, or refuses one that JSON cannot have.
func (f *webhooksFile) writeScalar(to *jsontext.Encoder, n *yaml.Node) {
	var value jsontext.Value
	switch n.ShortTag() {
	case "!!int", "!!float":
		value = numberOf(n.Value)
	case "!!bool":
		value = jsontext.Value(strings.ToLower(n.Value))
	case "!!null":
		value = jsontext.Value("null")
	default:
		_ = to.WriteToken(jsontext.String(n.Value))
		return
	}
	if to.WriteValue(value) != nil {
		f.refuse(n.Line, fmt.Sprintf("%q is no number or boolean of JSON: write one, without leading zeros, or put a text in quotes", n.Value))
		_ = to.WriteToken(jsontext.Null)
	}
}

// leadingZero matches numbers that are octal in YAML 1.1 and decimal in YAML 1.2: they are refused.
var leadingZero = regexp.MustCompile(`^[-+]?0_*[0-9]`)

// numberOf returns a number of YAML as JSON has it: digit by digit, since not each fits a
// float64. Where JSON has none, as for .inf, the value is not valid.
func numberOf(text string) jsontext.Value {
	digits, sign := strings.TrimPrefix(strings.ToLower(strings.ReplaceAll(text, "_", "")), "+"), ""
	if rest, negative := strings.CutPrefix(digits, "-"); negative {
		digits, sign = rest, "-"
	}
	whole, rest, _ := strings.Cut(digits, ".")
	switch n, ok := new(big.Int).SetString(digits, 0); {
	case ok && !leadingZero.MatchString(digits): // also 0x10, 0o10 and 0b10
		digits = n.String()
	case whole == "": // .5
		digits = "0" + digits
	case rest == "" || rest[0] == 'e': // 5. and 5.e3
		digits = whole + rest
	}
	return jsontext.Value(sign + digits)
}

// variable returns the name of the variable that a value {env: NAME} of a webhook's field
// stands for. Filters have names of their own, and env may be one.
func variable(n *yaml.Node, path []string) string {
	const field = 1 // below the item
	if len(path) <= field || path[field] == "filters" || len(n.Content) != 2 || n.Content[0].Value != "env" || n.Content[1].Kind != yaml.ScalarNode {
		return ""
	}
	return n.Content[1].Value
}

// at returns the node that a path of the API, as webhooks[2].batch.max_wait, leads to: its key,
// the nearest there is, and the name of its webhook.
func (f *webhooksFile) at(path string) (line int, field, webhook string) {
	n, line := f.root, f.root.Line
	for path != "" {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		item := 0
		switch _, err := fmt.Sscanf(path, "[%d]", &item); {
		case n.Kind == yaml.SequenceNode && err == nil && item < len(n.Content):
			n = n.Content[item]
			line = n.Line
			_, path, _ = strings.Cut(path, "]")
			if webhook == "" {
				webhook, field = valueOf(n, "name"), strings.TrimPrefix(path, ".")
			}
		case n.Kind == yaml.MappingNode:
			key, value := keyOf(n, path)
			if key == nil {
				return line, field, webhook
			}
			n, line, path = value, key.Line, path[len(key.Value):]
		default:
			return line, field, webhook
		}
		path = strings.TrimPrefix(path, ".")
	}
	return line, field, webhook
}

// keyOf returns the longest key of a mapping that the path begins with.
func keyOf(n *yaml.Node, path string) (key, value *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		rest, ok := strings.CutPrefix(path, n.Content[i].Value)
		if ok && (rest == "" || rest[0] == '.' || rest[0] == '[') && (key == nil || len(n.Content[i].Value) > len(key.Value)) {
			key, value = n.Content[i], n.Content[i+1]
		}
	}
	return key, value
}

// valueOf returns the text of a mapping's value, "" if it has none.
func valueOf(n *yaml.Node, key string) string {
	if _, value := keyOf(n, key); value != nil {
		return value.Value
	}
	return ""
}
