package main

import (
	"strings"
	"testing"
)

// Every use of an administrator's right is in the log, with who used it.
func TestAdministratorsAreInTheLog(t *testing.T) {
	c := newCLI(t)
	c.run(0, "", "token", "create", "--name", "crm", "--scopes", "admin")
	c.run(0, "", "projections", "rebuild", "--all")
	log, _ := c.run(0, "", "audit", "log", "--format", "ndjson")
	for _, act := range []string{`"token.created"`, `"read_model.rebuilt"`} {
		found := 0
		for line := range strings.Lines(log) {
			if strings.Contains(line, act) && strings.Contains(line, `"actor":"command line (`) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s is in the log %d times with an actor:\n%s", act, found, log)
		}
	}
}
