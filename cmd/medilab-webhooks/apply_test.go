package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const crmFile = `# ours
webhooks:
  - name: CRM
    url: https://crm.example/hooks
    events: [patient.created, visit.*]
    secret: {env: CRM_SECRET}
    headers:
      Authorization: {env: CRM_AUTHORIZATION}
      X-Clinic: north
    filters: {env: prod, amount_min: 1000.50}
  - &second
    name: "1"
    url: https://lab.example/
    events: ["*"]
    batch: {max_events: 10, max_wait: 5}
    payload_version: "2"
    fields: [patient_id]
    recipient: {name: Лаборатория}
    is_active: false
`

func (c cli) file(text string) string {
	c.Helper()
	path := filepath.Join(c.TempDir(), "webhooks.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.Fatal(err)
	}
	return path
}

func (c cli) logged() int {
	c.Helper()
	log, _ := c.run(0, "", "audit", "log", "--type", "webhook.*", "--format", "ndjson")
	return strings.Count(log, "\n")
}

func TestWebhooksAreAppliedAndExported(t *testing.T) {
	c := newAPICLI(t, 200)
	t.Setenv("CRM_SECRET", "a-secret-that-nobody-sees")
	t.Setenv("CRM_AUTHORIZATION", "Bearer nobody-sees-this")
	c.run(0, "", "webhooks", "apply", "-f", c.file("webhooks: []"), "--prune")
	before := c.logged()
	file := c.file(crmFile)

	out := c.both(0, "webhooks", "apply", "-f", file, "--dry-run")
	c.matches("the plan", out, `\+ CRM\n    name: CRM\n    url: https://crm\.example/hooks\n(    .*\n)*`+
		`    filters: \{"env":"prod","amount_min":1000\.50\}\n(    .*\n)*    secret: \*\*\*\n\+ 1\n(    .*\n)*create 2, change 0, delete 0, leave 0: nothing was changed \(--dry-run\)\n`)
	if n := c.logged(); n != before {
		t.Errorf("a dry run appended %d entries", n-before)
	}
	c.run(0, "", "webhooks", "apply", "-f", file)
	if n := c.logged(); n != before+2 {
		t.Errorf("two new webhooks are %d entries", n-before)
	}
	c.matches("the second time", c.both(0, "webhooks", "apply", "-f", file), "nothing to do: 2 webhooks are as in .*\n")

	exported := c.both(0, "webhooks", "export")
	c.matches("the export", exported, `# .*\n# Secrets .*\n#   WEBHOOK_CRM_HEADERS_AUTHORIZATION\n#   WEBHOOK_CRM_HEADERS_X_CLINIC\n#   WEBHOOK_CRM_SECRET\nwebhooks:\n`+
		`  - name: CRM\n(    .*\n)*    secret: \{env: WEBHOOK_CRM_SECRET\}\n(    .*\n)*  - name: '1'\n(    .*\n)*`)
	_, notes := c.run(1, exported, "webhooks", "apply", "-f", "-")
	c.matches("what is missing", notes, `medilab-webhooks: standard input names variables that are not set: WEBHOOK_CRM_HEADERS_AUTHORIZATION, WEBHOOK_CRM_HEADERS_X_CLINIC, WEBHOOK_CRM_SECRET; .*\n`)
	t.Setenv("WEBHOOK_CRM_SECRET", os.Getenv("CRM_SECRET"))
	t.Setenv("WEBHOOK_CRM_HEADERS_AUTHORIZATION", os.Getenv("CRM_AUTHORIZATION"))
	t.Setenv("WEBHOOK_CRM_HEADERS_X_CLINIC", "north")
	asJSON := c.both(0, "webhooks", "export", "--json")
	for _, text := range []string{exported, asJSON} {
		out, _ := c.run(0, text, "webhooks", "apply", "-f", "-", "--prune")
		c.matches("what was exported", out, "nothing to do: 2 webhooks are as in standard input\n")
	}
	if n := c.logged(); n != before+2 {
		t.Errorf("applying what is there appended %d entries", n-before-2)
	}

	t.Setenv("CRM_SECRET", "another-secret")
	changed := strings.NewReplacer("visit.*]", "visit.*]\n    timeout: 60", "    batch: {max_events: 10, max_wait: 5}\n", "", "    is_active: false\n", "").Replace(crmFile)
	out, _ = c.run(0, changed, "webhooks", "apply", "-f", "-")
	c.matches("the change", out, `~ CRM \(webhook \d+\)\n    timeout: 30 -> 60\n    secret: \*\*\* -> \*\*\* \(another\)\n`+
		`~ 1 \(webhook \d+\)\n    batch: \{"max_events":10,"max_wait":5\} -> none\ncreate 0, change 2, delete 0, leave 0: applied\n`)
	out, _ = c.run(0, changed[:strings.Index(changed, "  - &second")], "webhooks", "apply", "-f", "-", "--prune")
	c.matches("the deletion", out, `- 1 \(webhook \d+\)\ncreate 0, change 0, delete 1, leave 1: applied\n`)
	log, _ := c.run(0, "", "audit", "log", "--format", "ndjson")
	for _, secret := range []string{"nobody", "another-secret"} {
		if strings.Contains(log+exported+asJSON+out, secret) {
			t.Errorf("%q is shown", secret)
		}
	}
}

// Every mistake of a file is told at once, with its line, and nothing is applied.
func TestMistakesInAFileOfWebhooks(t *testing.T) {
	c := newAPICLI(t, 200)
	c.run(0, "webhooks: [{name: twin, url: 'http://a.example', events: ['*']}]", "webhooks", "apply", "-f", "-")
	c.run(0, "webhooks: [{name: Twin, url: 'http://a.example', events: ['*']}]", "webhooks", "apply", "-f", "-")
	before := c.logged()
	file := c.file(`webhooks:
  - name: A
    url: ftp://a.example
    events: [patient.created]
    timeuot: 30
  - name: B
    events: [nonsense]
    batch:
      max_events: 10
      max_wait: 1000
  - name: A
    url: http://a.example
    events: ["*"]
    timeout: soon
    number: 7
`)
	c.both(1, "webhooks", "apply", "-f", file)
	_, notes := c.run(1, "", "webhooks", "apply", "-f", file)
	for _, want := range []string{
		":3: A: url must be", ":5: A: timeuot is not a field of a webhook; did you mean timeout?", ":6: B: url is required", ":7: B: events",
		":10: B: batch.max_wait must be from 1 to 300 seconds", `:11: A: name is that of webhooks[0] too: "A"`, ":14: A: timeout must be a whole number", ":15: A: number is read-only",
		"has mistakes: 8; mend them, nothing was applied\n",
	} {
		if !strings.Contains(notes, want) {
			t.Errorf("%q is not in\n%s", want, notes)
		}
	}
	for text, want := range map[string]string{
		"webhoks: []":                             `standard input:1: "webhoks" is not a field of the file; did you mean webhooks?`,
		"- name: A":                               "must have `webhooks:`, a list",
		"webhooks: [{name: A, name: B}]":          `standard input:1: the key "name" is there twice`,
		"webhooks: &a [{name: A, recipient: *a}]": "standard input:1: the file is too large, or an alias goes in circles",
		"webhooks: {":                             "standard input cannot be read: line 2: ",
		"":                                        "medilab-webhooks: standard input must have `webhooks:`, a list\n",
		"# none":                                  "medilab-webhooks: standard input must have `webhooks:`, a list\n",
		"webhooks: []\n---\n":                     "medilab-webhooks: standard input cannot be read: it holds several documents (---); keep one\n",
		"webhooks: [1]":                           "standard input:1: webhooks[0] must be an object",
		"webhooks: [{name: A, url: {env: NOT_SET_1}}, {name: B, secret: {env: NOT_SET_2}}]": "not set: NOT_SET_1, NOT_SET_2;",
	} {
		_, notes := c.run(1, text, "webhooks", "apply", "-f", "-")
		if !strings.Contains(notes, want) {
			t.Errorf("%s: %q is not in\n%s", text, want, notes)
		}
	}
	if n := c.logged(); n != before {
		t.Errorf("mistakes appended %d entries", n-before)
	}
	c.run(2, "", "webhooks", "apply")
	c.run(1, "", "webhooks", "apply", "-f", file+".missing")
}

// Numbers of YAML are numbers of JSON, digit by digit, or refused: never silently texts.
func TestNumbersInAFileOfWebhooks(t *testing.T) {
	for text, want := range map[string]string{
		".5": "0.5", "-.5": "-0.5", "+.5e1": "0.5e1", "5.": "5", "-5.e3": "-5e3", "1e3": "1e3", "1E3": "1e3", "+5": "5", "-0": "-0", "0": "0", "0.10": "0.10",
		"0x10": "16", "-0x1F": "-31", "0o10": "8", "0b11": "3", "0xffff_ffff_ffff_ffff": "18446744073709551615", "1_000": "1000", "+1_000.50": "1000.50",
		"123456789012345678901234567890": "123456789012345678901234567890", "-1_2345678901234567890": "-12345678901234567890",
		"True": "true", "~": "null", "2024-01-02": `"2024-01-02"`, "1:30": `"1:30"`, "1.2.3": `"1.2.3"`, "'010'": `"010"`, `".5"`: `".5"`,
		"!!str 0x10": `"0x10"`, "inf": `"inf"`, "": "null",
		".inf": "", "-.Inf": "", ".nan": "", "010": "", "-010": "", "08": "", "00.5": "", "0_1": "", "!!int x": "", "!!bool x": "",
	} {
		f, list, err := readWebhooksFile("f.yaml", []byte("webhooks:\n  - {a: "+text+"}\n"))
		if err != nil {
			t.Fatal(text, err)
		}
		switch {
		case want == "" && (len(f.wrong) != 1 || !strings.HasPrefix(f.wrong[0], "f.yaml:2: ") || !strings.Contains(f.wrong[0], "no number or boolean of JSON")):
			t.Errorf("%s is not refused: %s %q", text, list, f.wrong)
		case want != "" && (len(f.wrong) > 0 || strings.TrimSpace(string(list)) != `[{"a":`+want+`}]`):
			t.Errorf("%s is %s, not %s %q", text, list, want, f.wrong)
		}
	}
	c := newAPICLI(t, 200)
	file := c.file(`webhooks:
  - {name: numbers, url: 'http://a.example', events: ['*'], timeout: 0x10, retry_delay: 1_000, rate_limit: .5, filters: {amount_min: .5, code: 0o10}}
`)
	out := c.both(0, "webhooks", "apply", "-f", file, "--dry-run")
	c.matches("the plan", out, `(.*\n)*    retry_delay: 1000\n    timeout: 16\n(.*\n)*    filters: \{"amount_min":0\.5,"code":8\}\n(.*\n)*    rate_limit: 0\.5\n(.*\n)*`)
	_, notes := c.run(1, "", "webhooks", "apply", "-f", c.file("webhooks: [{name: numbers, url: 'http://a.example', events: ['*'], filters: {a: .inf}}]"))
	c.matches("what is no number", notes, `.*webhooks\.yaml:1: "\.inf" is no number or boolean of JSON: .*\n.*has mistakes: 1; mend them, nothing was applied\n`)
}
