package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

// The commands about patients say what is archived, and a folder without archives says so.
func TestArchivesOnTheCommandLine(t *testing.T) {
	c := newAPICLI(t, 200)
	dir := t.TempDir()
	c.run(0, "", "webhooks", "test", "1", "--data", `{"patient_id":"17"}`)
	before := time.Now().UTC().Format(time.RFC3339Nano)
	c.fold()
	if _, notes := c.run(0, "", "subjects", "disclosures", "17"); notes != "" {
		t.Errorf("with nothing archived there is a note: %s", notes)
	}
	c.run(0, "", "archive", "export", "--to", before, dir)
	for _, question := range []string{"disclosures", "export"} {
		out, notes := c.run(0, "", "subjects", question, "17")
		c.matches("the note", notes, `What was recorded up to \S+Z is archived and left out: .*\n`)
		if strings.Contains(out, "dispatch") || strings.Contains(out, "test") {
			t.Errorf("%s shows what is archived: %s", question, out)
		}
	}
	c.run(2, "", "subjects", "disclosures", "") // of nobody
	out, _ := c.run(0, "", "subjects", "erase", "17", "--reason", "asked for")
	c.matches("the erasure", out, `Erased 0 events .*\nNot counted: what is archived, up to position \d+; .*\n`)
}

func TestListNoArchives(t *testing.T) {
	c := newCLI(t)
	dir, key := t.TempDir(), t.TempDir()+"/receipts.json"
	if err := os.WriteFile(key, []byte(`{"keys":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _ := c.run(0, "", "archive", "list", dir, "--key", key); out != "There is no archive in "+dir+"\n" {
		t.Errorf("the list is %q", out)
	}
	if out, _ := c.run(0, "", "archive", "list", dir, "--key", key, "--json"); out != "[]\n" {
		t.Errorf("the list in JSON is %q", out)
	}
}
