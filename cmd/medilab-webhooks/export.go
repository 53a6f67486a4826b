package main

import (
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/medilab/webhooks/domain"
	api "github.com/medilab/webhooks/http"
)

func newWebhooksExportCommand(db *databaseOptions) *cobra.Command {
	o := &apiOptions{database: db}
	c := &cobra.Command{
		Use: "export", Short: "Print all webhooks as a file for apply, secrets as names of variables",
		Example: `  medilab-webhooks webhooks export > webhooks.yaml`,
		RunE: o.run(func(c *cobra.Command, a *apiClient, _ []string) error {
			items, err := a.newest(c.Context(), "/webhooks", url.Values{}, math.MaxInt)
			if err != nil {
				return err
			}
			return exportWebhooks(c, items)
		}),
	}
	declare(c, c.Flags(), o.table())
	return withJSON(c)
}

// exported is what an export makes of webhooks.
type exported struct{ variables []string }

// exportWebhooks prints webhooks of the API, the oldest first.
func exportWebhooks(c *cobra.Command, items []json.RawMessage) error {
	all, err := yamlOf(items)
	if err != nil {
		return err
	}
	e, list, numbers := exported{}, &yaml.Node{Kind: yaml.SequenceNode}, map[string]string{}
	for _, w := range all.Content {
		name, number := valueOf(w, "name"), valueOf(w, "number")
		if other := numbers[name]; other != "" {
			fmt.Fprintf(c.ErrOrStderr(), say("webhooks %s and %s have the same name, which apply refuses: %s\n"), other, number, sanitizeLine(name))
		}
		numbers[name] = number
		list.Content = append(list.Content, e.webhook(w))
	}
	file := mapping("webhooks", list)
	if wantsJSON(c) {
		return printJSON(c.OutOrStdout(), (&webhooksFile{raw: true}).toJSON(file))
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

// webhook returns what a file says of a webhook of the API: the fields that it has.
func (e *exported) webhook(w *yaml.Node) *yaml.Node {
	prefix := "WEBHOOK_" + variableName(valueOf(w, "name"))
	if prefix == "WEBHOOK_" { // a name without Latin letters
		prefix += valueOf(w, "number")
	}
	node := mapping()
	for _, field := range api.WebhookFields() {
		_, value := keyOf(w, field)
		switch {
		case field == "secret" && valueOf(w, "has_secret") == "true":
			value = e.variable(prefix + "_SECRET")
		case value == nil || isEmpty(value) && field != "is_active":
			continue
		case field != "filters" && value.Kind == yaml.MappingNode:
			for i := 0; i+1 < len(value.Content); i += 2 {
				if value.Content[i+1].Value == domain.Masked {
					value.Content[i+1] = e.variable(prefix + "_" + strings.ToUpper(field) + "_" + variableName(value.Content[i].Value))
				}
			}
		}
		node.Content = append(node.Content, mapping(field, value).Content...)
	}
	return node
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

func isEmpty(n *yaml.Node) bool {
	return len(n.Content) == 0 && (n.Kind != yaml.ScalarNode || n.Value == "" || n.ShortTag() == "!!null" || n.ShortTag() == "!!bool" && n.Value == "false")
}

// mapping returns a mapping of the keys, each with the node that follows it.
func mapping(pairs ...any) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	for i := 0; i+1 < len(pairs); i += 2 {
		m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: pairs[i].(string)}, pairs[i+1].(*yaml.Node))
	}
	return m
}

// yamlOf returns items of the API as YAML, in reverse. Numbers stay as they are written, and
// texts lose escapes that YAML does not know.
func yamlOf(items []json.RawMessage) (*yaml.Node, error) {
	slices.Reverse(items)
	text, err := json.Marshal(items)
	if err == nil {
		text, err = jsontext.AppendFormat(nil, text, jsontext.EscapeForJS(true)) // YAML breaks lines where they do
	}
	if err != nil {
		return nil, err
	}
	var document yaml.Node
	if err := yaml.Load(text, &document); err != nil {
		return nil, err
	}
	inBlocks(&document)
	return document.Content[0], nil
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
