package main

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/medilab/webhooks/http/texts"
)

// The texts of help and messages in Russian, by the English ones, with holes as in texts.Table. Those
// with % verbs are formats.
//
//go:embed texts.ru.json
var russianJSON []byte

var russian = sync.OnceValue(func() *texts.Table {
	var all map[string]string
	if err := json.Unmarshal(russianJSON, &all); err != nil {
		panic(err) // of what is embedded
	}
	return texts.NewTable(all)
})

// speaksRussian reports whether the environment asks for Russian.
func speaksRussian() bool {
	language := cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_MESSAGES"), os.Getenv("LANG"))
	return strings.HasPrefix(language, "ru")
}

// answersInRussian reports whether the command asks an API for texts in Russian: for people, not
// for JSON or a pipe.
func answersInRussian(c *cobra.Command) bool {
	return speaksRussian() && isTerminal(c.OutOrStdout()) && !wantsJSON(c)
}

// say returns a text in the language of the environment; one that is not in the table stays.
func say(text string) string {
	if !speaksRussian() {
		return text
	}
	return cmp.Or(russian().Texts[text], text)
}

// sayError is say for a message that was put together: of its parts, those in the table.
func sayError(message string) string {
	if !speaksRussian() {
		return message
	}
	if translation, ok := russian().Find(message, sayError); ok {
		return translation
	}
	if translation, ok := texts.Russian(message); ok { // of a rule that the API has too
		return translation
	}
	for _, joint := range []string{"\n", "; ", ": "} {
		if first, rest, ok := strings.Cut(message, joint); ok {
			return sayError(first) + joint + sayError(rest)
		}
	}
	return message
}

// inLanguage puts the help of the command, and of all below it, into the language of the
// environment.
func inLanguage(c *cobra.Command) {
	if !speaksRussian() {
		return
	}
	usage := c.UsageTemplate()
	for _, heading := range []string{"Usage:", "Aliases:", "Examples:", "Available Commands:", "Additional Commands:", "Global Flags:", "Flags:", `Use "`, ` --help" for more information about a command.`} {
		usage = strings.ReplaceAll(usage, heading, say(heading))
	}
	c.SetUsageTemplate(usage)
	translate(c)
}

func translate(c *cobra.Command) {
	c.InitDefaultHelpFlag()
	c.Short, c.Long = say(c.Short), say(c.Long)
	for _, flags := range []*pflag.FlagSet{c.Flags(), c.PersistentFlags()} {
		flags.VisitAll(func(f *pflag.Flag) { f.Usage = sayUsage(c, f.Usage) })
	}
	for _, sub := range c.Commands() {
		translate(sub)
	}
}

// settingOf matches the variable, and the default in words, behind the text of a flag.
var settingOf = regexp.MustCompile(`^(.*) \(((?:MEDILAB_|DATABASE_)\w+)(?:; default: (.*))?\)$`)

// sayUsage is say for the text of a flag.
func sayUsage(c *cobra.Command, usage string) string {
	if usage == "help for "+c.Name() {
		return say("help for this command")
	}
	of := settingOf.FindStringSubmatch(usage)
	switch {
	case of == nil:
		return say(usage)
	case of[3] == "":
		return say(of[1]) + " (" + of[2] + ")"
	}
	return say(of[1]) + " (" + of[2] + "; " + say("default: ") + say(of[3]) + ")"
}
