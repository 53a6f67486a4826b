package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Everything that help says has its Russian text.
func TestHelpInRussian(t *testing.T) {
	t.Setenv("LC_ALL", "C")
	var english []string
	each := func(c *cobra.Command) {
		english = append(english, c.Short, c.Long)
		c.InitDefaultHelpFlag()
		for _, flags := range []*pflag.FlagSet{c.Flags(), c.PersistentFlags()} {
			flags.VisitAll(func(f *pflag.Flag) { english = append(english, f.Usage) })
		}
	}
	root := newRoot(io.Discard)
	each(root)
	for _, c := range allCommands(root) {
		if !strings.Contains(c.CommandPath(), " completion ") {
			each(c)
		}
	}
	t.Setenv("LC_ALL", "ru_RU.UTF-8")
	slices.Sort(english)
	for _, text := range slices.Compact(english) {
		if of := settingOf.FindStringSubmatch(text); of != nil {
			text = of[1]
		}
		if text != "" && !strings.HasPrefix(text, "help for ") && sayUsage(root, text) == text {
			t.Errorf("has no Russian text: %q", text)
		}
	}
}

// A command without its argument says which one it lacks, by its name in help.
func TestMissingArgumentIsNamed(t *testing.T) {
	commands := 0
	argument := regexp.MustCompile(`^[a-z]+ (?:--[a-z]+ [A-Z]+ )?([A-Z]+)(?: --from T --to T)?$`)
	for _, c := range allCommands(newRoot(io.Discard)) {
		of := argument.FindStringSubmatch(c.Use)
		if of == nil {
			continue
		}
		commands++
		for locale, want := range map[string]string{"C": "the argument " + of[1] + " is missing; ", "ru_RU.UTF-8": "не указан аргумент " + of[1] + "; "} {
			t.Setenv("LC_ALL", locale)
			var notes strings.Builder
			if code := run(t.Context(), strings.Fields(c.CommandPath())[1:], strings.NewReader(""), io.Discard, &notes); code != 2 || !strings.Contains(notes.String(), want) {
				t.Errorf("%s: %d %s", c.CommandPath(), code, notes.String())
			}
		}
	}
	if want := 16; commands != want {
		t.Errorf("%d commands need an argument, want %d", commands, want)
	}
}

// What stands in a table is in words of its column.
func TestWordsOfColumnsInRussian(t *testing.T) {
	t.Setenv("LC_ALL", "ru_RU.UTF-8")
	for _, one := range [][4]string{
		{"STATE", "valid", "СОСТОЯНИЕ", "действует"}, {"STATE", "revoked", "СОСТОЯНИЕ", "отозван"}, {"STATUS", "active", "СТАТУС", "включён"},
		{"ACKNOWLEDGED", "true", "ПОЛУЧЕНО", "да"}, {"NAME", "valid", "НАЗВАНИЕ", "valid"},
	} {
		rows := [][]string{{one[0]}, {one[1]}}
		paint{terminal: true}.translate(rows)
		if rows[0][0] != one[2] || rows[1][0] != one[3] {
			t.Errorf("%s %s: %s", one[0], one[1], rows)
		}
	}
}

// Messages are in the language of the environment, put together of parts as they are; what is
// printed for programs is not.
func TestMessagesInRussian(t *testing.T) {
	t.Setenv("LC_ALL", "")
	t.Setenv("LANG", "ru_RU.UTF-8")
	t.Setenv("MEDILAB_WORKERS", "0")
	for args, want := range map[string]string{
		"serve":                       "MEDILAB_WORKERS — не меньше 1; справка: `medilab-webhooks help`",
		"receive --status 9":          "--status — от 200 до 599; справка: `medilab-webhooks help`",
		"receive --delay x":           `--delay: "x" — не длительность, например 30s или 30d; справка`,
		"listen --forward-to ftp://a": "--forward-to: должно начинаться с http:// или https://; справка",
		"calls a b":                   "аргументов не больше 1, получено: 2; справка",
		"nothing":                     `нет команды "nothing" у "medilab-webhooks"; справка`,
	} {
		var notes strings.Builder
		if code := run(t.Context(), strings.Fields(args), strings.NewReader(""), io.Discard, &notes); code != 2 || !strings.Contains(notes.String(), want) {
			t.Errorf("%s: %d %s", args, code, notes.String())
		}
	}
	made := "Token 7 (CI) is made. Keep it now, it is not shown again:\n\n  secret"
	if got := sayError(made); got != "Токен 7 (CI) создан. Сохраните его сейчас, больше он показан не будет:\n\n  secret" {
		t.Errorf("of a token it says %q", got)
	}
	for made, want := range map[string]string{
		"the receipt was changed after it was signed, or another key signed it": "квитанцию изменили после подписания, или её подписал другой ключ",
		"a.zst is not the file that was signed: it was changed":                 "файл a.zst изменён после подписания", // as the API has it
	} {
		if got := sayError(made); got != want {
			t.Errorf("of %q it says %q", made, got)
		}
	}
	// Of lines each is translated; the words of the YAML library stay behind a colon.
	file := filepath.Join(t.TempDir(), "x.yaml")
	for text, want := range map[string]string{
		"webhooks: [":                 file + ": строка 2: did not find",
		"webhook: []":                 file + `:1: в файле нет поля "webhook"; возможно, webhooks?` + "\n",
		"webhooks: [{1: {? [] : x}}]": file + `:1: ключ "" повторяется или не является текстом` + "\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var notes strings.Builder
		if code := run(t.Context(), []string{"webhooks", "apply", "-f", file, "--server", "http://127.0.0.1:1", "--token", "x"}, strings.NewReader(""), io.Discard, &notes); code != 1 || !strings.Contains(notes.String(), want) {
			t.Errorf("%s: %d %s", text, code, notes.String())
		}
	}
	if got := sayError("Erased 21 events at position 30; 1 delivery is cancelled\nNot counted: what is archived, up to position 7; what the archives hold of the patient cannot be read any more either"); got !=
		"Стёрто событий: 21, позиция 30; отменено доставок: 1\nНе сосчитано: то, что в архиве, до позиции 7; данные пациента из архивов тоже больше не прочитать" {
		t.Errorf("of an erasure it says %q", got)
	}
	nilID := "--event-id 00000000-0000-0000-0000-000000000000"
	var notes strings.Builder
	if code := run(t.Context(), strings.Fields("emit patient.created {} "+nilID), strings.NewReader(""), io.Discard, &notes); code != 2 || !strings.Contains(notes.String(), "не нулевой UUID") {
		t.Errorf("%s: %d %s", nilID, code, notes.String())
	}
	var out strings.Builder
	run(t.Context(), []string{"help", "receive"}, strings.NewReader(""), &out, io.Discard)
	for _, want := range []string{"Принимать вебхуки здесь", "Общие параметры:", "справка по этой команде"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %s", want, out.String())
		}
	}
	if got := deliver(t, receiveOptions{status: 200}, nil, "{}", 200); !strings.Contains(got, "answered 200") {
		t.Errorf("in a pipe: %s", got)
	}
}
