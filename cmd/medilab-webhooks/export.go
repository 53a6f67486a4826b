package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/medilab/webhooks/domain"
	api "github.com/medilab/webhooks/http"
)

func newWebhooksExportCommand(db *databaseOptions) *cobra.Command {
	o := &apiOptions{database: db}
	c := &cobra.Command{
		Use: "export", Short: "Print all webhooks as a file for apply, secrets as names of variables", Args: cobra.NoArgs,
		Example: `  medilab-webhooks webhooks export > webhooks.yaml`,
		RunE: func(c *cobra.Command, _ []string) error {
			return o.use(c, func(a *apiClient) error {
				items, err := a.newest(c.Context(), "/webhooks", url.Values{}, math.MaxInt)
				if err != nil {
					return err
				}
				slices.Reverse(items)
				return exportWebhooks(c, items)
			})
		},
	}
	declare(c, c.Flags(), o.table())
	addJSONFlag(c)
	return c
}

// exported is what an export makes of webhooks.
type exported struct {
	variables []string
}

// exportWebhooks prints webhooks of the API, the oldest first.
func exportWebhooks(c *cobra.Command, items []json.RawMessage) error {
	e := exported{}
	list := &yaml.Node{Kind: yaml.SequenceNode}
	numbers := map[string]json.Number{}
	for _, item := range items {
		var w map[string]any
		if err := decodeExactly(item, &w); err != nil {
			return err
		}
		name, _ := w["name"].(string)
		number, _ := w["number"].(json.Number)
		if other, twice := numbers[name]; twice {
			fmt.Fprintf(c.ErrOrStderr(), "webhooks %s and %s have the same name, which apply refuses: %s\n", other, number, sanitizeLine(name))
		}
		numbers[name] = number
		node, err := e.webhook(w)
		if err != nil {
			return err
		}
		list.Content = append(list.Content, node)
	}
	file := mapping("webhooks", list)
	if wantsJSON(c) {
		f := &webhooksFile{raw: true}
		var b bytes.Buffer
		f.appendJSON(&b, file, nil)
		return printJSON(c.OutOrStdout(), json.RawMessage(b.Bytes()))
	}
	file.HeadComment = "The webhooks, for `medilab-webhooks webhooks apply -f FILE`."
	if len(e.variables) > 0 {
		file.HeadComment += "\nSecrets are not in here. Before apply, set:\n  " + strings.Join(e.variables, "\n  ")
	}
	text, err := yaml.Dump(file, yaml.WithIndent(2), yaml.WithCompactSeqIndent(false), yaml.WithLineWidth(-1))
	if err == nil {
		_, err = c.OutOrStdout().Write(text)
	}
	return err
}

// webhook returns what a file says of a webhook: the fields that it has.
func (e *exported) webhook(w map[string]any) (*yaml.Node, error) {
	if w["has_secret"] == true {
		w["secret"] = domain.Masked
	}
	prefix := "WEBHOOK_" + variableName(fmt.Sprint(w["name"]))
	if prefix == "WEBHOOK_" { // a name without Latin letters
		prefix += fmt.Sprint(w["number"])
	}
	node := mapping()
	for _, field := range api.WebhookFields() {
		value := w[field]
		if isEmpty(value) && field != "is_active" {
			continue
		}
		of, err := yamlOf(value)
		if err != nil {
			return nil, err
		}
		switch {
		case field == "secret":
			of = e.variable(prefix + "_SECRET")
		case field != "filters" && of.Kind == yaml.MappingNode:
			for i := 0; i+1 < len(of.Content); i += 2 {
				if of.Content[i+1].Value == domain.Masked {
					of.Content[i+1] = e.variable(prefix + "_" + strings.ToUpper(field) + "_" + variableName(of.Content[i].Value))
				}
			}
		}
		node.Content = append(node.Content, mapping(field, of).Content...)
	}
	return node, nil
}

// variable returns what stands for a secret, under a name of its own.
func (e *exported) variable(name string) *yaml.Node {
	unique := name
	for n := 2; slices.Contains(e.variables, unique); n++ {
		unique = fmt.Sprintf("%s_%d", name, n)
	}
	e.variables = append(e.variables, unique)
	node := mapping("env", &yaml.Node{Kind: yaml.ScalarNode, Value: unique})
	node.Style = yaml.FlowStyle
	return node
}

// variableName returns a text's Latin letters and digits, as names of variables are written.
func variableName(text string) string {
	words := strings.FieldsFunc(strings.ToUpper(text), func(r rune) bool { return (r < 'A' || r > 'Z') && (r < '0' || r > '9') })
	return strings.Join(words, "_")
}

func isEmpty(value any) bool {
	switch v := value.(type) {
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return value == nil || value == "" || value == false
}

// mapping returns a mapping of the keys, each with the node that follows it.
func mapping(pairs ...any) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	for i := 0; i+1 < len(pairs); i += 2 {
		m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: pairs[i].(string)}, pairs[i+1].(*yaml.Node))
	}
	return m
}

// yamlOf returns a value of JSON as YAML, with numbers as they are written.
func yamlOf(value any) (*yaml.Node, error) {
	var text bytes.Buffer
	var document yaml.Node
	if err := printJSON(&text, value); err != nil {
		return nil, err
	}
	if err := yaml.Load(text.Bytes(), &document); err != nil {
		return nil, err
	}
	node := document.Content[0]
	inBlocks(node)
	return node, nil
}

// inBlocks has nodes written as people write YAML, quoted where they must be; short lists stay
// on their line.
func inBlocks(n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		n.Style = 0
	}
	for _, below := range n.Content {
		inBlocks(below)
	}
}

func decodeExactly(data []byte, v any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	return decoder.Decode(v)
}
