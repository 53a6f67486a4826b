package admin_test

import "testing"

// emit emits as the clinic does, whatever the catalogue.
func (u *user) emit(eventType, data string) {
	u.t.Helper()
	u.exec(`INSERT INTO medilab.event_types VALUES ($1, '', '') ON CONFLICT DO NOTHING`, eventType)
	u.exec(`SELECT medilab.emit($1, '`+data+`')`, eventType)
}

// A parked event says in the panel why it still cannot be accepted, and is discarded when
// somebody says so twice.
func TestParkedEventsAreSettledInThePanel(t *testing.T) {
	u := newUser(t, "en")
	u.Expect("network") // it answers that it still cannot be accepted
	u.emit("lab.lost", `{"note": "a sample"}`)
	u.signIn("API token", "Sign in")
	u.Click("Events")
	u.Click("Parked events")
	u.Wait(`document.body.innerText.includes('not a known event type') || (document.querySelector('.top .wide')?.click(), false)`)
	u.Click("Retry")
	u.See("it still cannot be accepted")
	u.Click("Discard")
	u.See("Discard the parked event?")
	u.Click("Cancel")
	u.See("a sample")
	u.Click("Discard")
	u.Wait(`document.querySelector('dialog[open]')`)
	u.Click("Discard")
	u.See("There are no parked events.")
	if log := u.api("GET", "/webhooks/events/parked", ""); len(log["items"].([]any)) != 0 {
		t.Errorf("still parked: %v", log)
	}
}
