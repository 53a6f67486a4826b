package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/projections"
)

func TestReplayCommands(t *testing.T) {
	c := newCLI(t)
	c.run(0, "", "emit", "patient.created", "{}")
	c.run(0, "", "emit", "visit.created", "{}")
	db := databaseOptions{url: os.Getenv("DATABASE_URL")}
	s := openSession(t, db)
	w := domain.WebhookRegistered{ID: domain.WebhookID(uuid.New()), Number: 1, Name: "new", URL: "http://receiver.test/", Events: []string{"*"}, PayloadVersion: domain.PayloadV1, Active: true}
	_, err := s.log.Append(t.Context(), eventstore.Unit{Writes: []eventstore.Write{{Stream: w.ID.Stream(), Events: []eventstore.NewEvent{{Type: w.ChangeType(), Data: domain.AppendJSON(nil, w), Value: w}}}}})
	if err != nil {
		t.Fatal(err)
	}
	all := []string{"--from", "2020-01-01", "--to", "2100-01-01"}
	out, _ := c.run(0, "", append([]string{"replay", "start", "1", "--dry-run"}, all...)...)
	c.matches("what would be sent", out, "2\n")
	out, _ = c.run(0, "", append([]string{"replay", "start", "1", "--dry-run", "--types", "patient.*", "--json"}, append(all, "--rate", "5")...)...)
	c.matches("what would be sent", out, `\{"matched":1,"replay_id":null\}\n`)
	id, _ := c.run(0, "", append([]string{"replay", "start", "1", "--rate", "0.5"}, all...)...)
	c.matches("the replay", id, "[0-9a-f-]{36}\n")
	id = strings.TrimSpace(id)
	state := func(command string) domain.ReplayState {
		t.Helper()
		out, _ := c.run(0, "", "replay", command, id, "--json")
		var r projections.Replay
		if err := json.Unmarshal([]byte(out), &r); err != nil || r.Rate == nil || *r.Rate != 0.5 || r.ID.String() != id {
			t.Errorf("%s: %s, %v", command, out, err)
		}
		return r.State
	}
	// No server runs that would work on it.
	for _, x := range []struct {
		command string
		want    domain.ReplayState
	}{{"show", "counting"}, {"pause", "paused"}, {"resume", "counting"}, {"cancel", "cancelled"}} {
		if got := state(x.command); got != x.want {
			t.Errorf("%s: it is %s, want %s", x.command, got, x.want)
		}
	}
	_, notes := c.run(1, "", "replay", "resume", id)
	c.matches("the refusal", notes, "medilab-webhooks: the replay is cancelled already\n")
	_, notes = c.run(1, "", "replay", "show", w.ID.String())
	c.matches("the refusal", notes, "medilab-webhooks: .*\n")
	for _, wrong := range []string{"show x", "start 1 --from 2020-01-01", "start", "start 1 --from x --to 2021-01-01"} {
		c.run(2, "", append([]string{"replay"}, strings.Fields(wrong)...)...)
	}
	for flag, want := range map[string]string{"--rate=0": "--rate must be from ", "--rate=NaN": `--rate: "NaN" is no number`, "--rate=-Inf": `--rate: "-Inf" is no number`, "--types=": "--types must have ", "--to=2019-01-01": "--to must be after --from"} {
		_, notes := c.run(2, "", append(append([]string{"replay", "start", "1"}, all...), flag)...)
		c.matches(flag, notes, "medilab-webhooks: "+want+".*\n")
	}
	out, _ = c.run(0, "", "replay", "list", "1") // no server has filled the read models
	c.matches("the list", out, `ID +KIND +STATE .*\n`)
}

// Replays of a server are started, watched and stopped as those of a database.
func TestReplayOnAServer(t *testing.T) {
	c := newAPICLI(t, 200)
	c.run(0, "", "emit", "patient.created", "{}")
	remote := []string{"--server", c.server, "--token", remoteToken, "--ca-file", c.ca}
	all := []string{"--from", "2020-01-01", "--to", "2100-01-01"}
	// What is on its way already is not sent again.
	c.matches("what would be sent", c.both(0, append([]string{"replay", "start", "1", "--dry-run"}, all...)...), "0\n")
	id, _ := c.run(0, "", append(append([]string{"replay", "start", "1"}, all...), remote...)...)
	c.matches("the replay", id, "[0-9a-f-]{36}\n")
	id = strings.TrimSpace(id)
	for _, command := range []string{"pause", "resume", "cancel"} {
		c.run(0, "", append([]string{"replay", command, id}, remote...)...)
		c.matches(command, c.both(0, "replay", "show", id), `ID +KIND .*\n`+id+` +replay +(paused|counting|cancelled) .* admin\n`)
	}
	c.both(1, "replay", "pause", id)
	c.both(1, "replay", "show", "0198f0a0-0000-7000-8000-000000000001")
	c.both(2, append([]string{"replay", "start", "1", "--types", "nonsense"}, all...)...)
	_, notes := c.run(2, "", append([]string{"replay", "start", "1", "--types", "visit.*,nonsense"}, all...)...)
	c.matches("the refusal", notes, `medilab-webhooks: --types "nonsense" is not a known event type, group or \*; .*\n`)
	c.fold()
	c.matches("the list", c.both(0, "replay", "list", "1"), `ID .*\n`+id+` .*\n`)
}
