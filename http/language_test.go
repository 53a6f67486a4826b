package http_test

import (
	"net/http"
	"strings"
	"testing"
)

// Answers speak the language that Accept-Language prefers. What machines read stays as it is.
func TestLanguage(t *testing.T) {
	s := newService(t)
	for accept, want := range map[string]string{
		"": "en", "en": "en", "ru": "ru", "ru-RU,ru;q=0.9,en;q=0.8": "ru", "en-US,en;q=0.9,ru;q=0.8": "en",
		"en;q=0.3, ru;q=0.7": "ru", "de": "en", "*": "en", "ru;q=0": "en", ";;broken": "en",
	} {
		got := s.ask("GET", "/api/v1/webhooks/999", "", "Accept-Language", accept).want(404)
		if got.header.Get("Content-Language") != want || got.header.Get("Vary") != "Accept-Language" {
			t.Errorf("%q: Content-Language %q, Vary %q", accept, got.header.Get("Content-Language"), got.header.Get("Vary"))
		}
		detail := map[string]string{"en": "webhook not found", "ru": "вебхук не найден"}[want]
		if got.text("detail") != detail || got.text("type") != "urn:medilab:problem:not_found" {
			t.Errorf("%q: %s", accept, got.body)
		}
	}
	refused := s.ask("POST", "/api/v1/webhooks/", `{"url":"ftp://x","events":["nope"],"max_retries":11,"filters":{"a":{"$regex":"("}}}`, "Accept-Language", "ru").want(422)
	if got := refused.text("title"); got != "Поля запроса заполнены неверно" {
		t.Error(got)
	}
	messages := map[string]string{
		"name": "обязательное поле", "url": "должно начинаться с http:// или https://", "events": "такого типа или группы событий нет",
		"max_retries": "должно быть от 0 до 10", "filters": "это не регулярное выражение (RE2): нет закрывающей скобки ): `(`",
	}
	for _, e := range refused.problem().Errors {
		if messages[e.Field] != e.Message {
			t.Errorf("%s: %q, want %q", e.Field, e.Message, messages[e.Field])
		}
		delete(messages, e.Field)
	}
	if len(messages) > 0 {
		t.Errorf("not refused: %v", messages)
	}
}

// What is recorded in English is shown in Russian, wherever it is read: in lists, in the stream
// and in explanations. What events hold is nobody's text.
func TestLanguageOfRecords(t *testing.T) {
	s := newService(t)
	s.work()
	s.registerAt(newReceiver(t, http.StatusTeapot).URL, `,"max_retries":0`)
	s.register(`"filters":{"amount":1}`)
	event := s.ask("POST", "/api/v1/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{"amount":2,"error":"a call succeeded"}}`).want(202).text("event_id")
	s.until("the delivery failed", func() bool { return s.deliveryState(event) == "failed" })
	s.settled()
	_, err := s.pool.Exec(t.Context(), `INSERT INTO medilab.alerts (position, id, webhook, kind, details, raised_at)
		VALUES (1, gen_random_uuid(), gen_random_uuid(), 'given_up', '{"message":"a delivery of patient.created ran out of retries after 1 attempt"}', now())`)
	if err != nil {
		t.Fatal(err)
	}
	russian := func(path string) answer {
		t.Helper()
		return s.ask("GET", "/api/v1/webhooks"+path, "", "Accept-Language", "ru").want(200)
	}
	if got := russian("/calls").text("items", 0, "error"); got != "получатель ответил 418" {
		t.Error(got)
	}
	if got := s.ask("GET", "/api/v1/webhooks/calls", "").want(200).text("items", 0, "error"); got != "the receiver answered 418" {
		t.Error(got)
	}
	if got := russian("/events/"+event).text("event_data", "error"); got != "a call succeeded" {
		t.Error(got)
	}
	if got := russian("/events/" + event + "/explain"); !strings.Contains(string(got.body), `"reason":"amount не подходит под фильтр"`) || !strings.Contains(string(got.body), `"verdict":"filtered"`) {
		t.Errorf("%s", got.body)
	}
	if got := russian("/alerts").text("items", 0, "message"); got != "доставка patient.created не удалась: попытки кончились (1)" {
		t.Error(got)
	}
	streamed := s.stream("?kinds=call", "Last-Event-ID", "0", "Accept-Language", "ru")
	if got := streamed.want("call").data; !strings.Contains(got, `"error":"получатель ответил 418"`) {
		t.Error(got)
	}
	if got := streamed.header.Get("Content-Language"); got != "ru" {
		t.Errorf("Content-Language %q", got)
	}
}
