package main

import (
	"os"
	"testing"
)

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
