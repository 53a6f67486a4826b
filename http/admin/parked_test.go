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
	u.Wait(`document.body.innerText.includes('not a known event type') || (document.querySelector('[aria-busy]') || document.querySelector('.top .wide')?.click(), false)`)
	u.Click("Retry")
	u.See("it still cannot be accepted")
	u.Click("Discard")
	u.See("Discard the parked event?")
	u.Click("No")
	u.See("a sample")
	u.Click("Discard")
	u.Wait(`document.querySelector('dialog[open]')`)
	u.Click("Discard")
	u.See("There are no parked events.")
	if log := u.api("GET", "/webhooks/events/parked", ""); len(log["items"].([]any)) != 0 {
		t.Errorf("still parked: %v", log)
	}
}

// A parked event is mended in the panel: it is accepted with other data, under its own id.
func TestAParkedEventIsMendedInThePanel(t *testing.T) {
	u := newUser(t, "ru")
	u.Expect("network") // what is typed first is refused
	u.emit("patient.created", `{"patient_id": 7, "weight": 1e400}`)
	u.signIn("Токен API", "Войти")
	u.Go(u.address + "/admin#/events/parked")
	u.Wait(`document.querySelector('main h2 code') || (document.querySelector('[aria-busy]') || document.querySelector('.top .wide')?.click(), false)`)
	u.Click("Исправить данные")
	u.Fill("Данные", `[]`)
	u.Click("Исправить и принять")
	u.Wait(`document.querySelector('dialog [aria-invalid]')`)
	u.Fill("Данные", `{"patient_id": 7, "weight": 12345678901234567890}`)
	u.Click("Исправить и принять")
	u.See("Отложенных событий нет.")
	event := u.api("GET", "/webhooks/events", "")["items"].([]any)[0].(map[string]any)
	if got := event["event_data"].(map[string]any); got["patient_id"] != 7.0 || got["weight"] != 12345678901234567890.0 {
		t.Errorf("accepted: %v", got)
	}
	u.Go(u.address + "/admin#/audit")
	u.See("исправлено и принято отложенное событие")
}
