package eventstore

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

func TestAppendLine(t *testing.T) {
	e := Event{Position: 7, Stream: "event-1", Version: 2, Type: "event.triggered", Data: []byte("{\n \"a\":\r\n\"\\n<&>\"}"),
		Metadata: []byte(`{"actor":"x"}`), RecordedAt: time.Date(2026, 1, 2, 3, 4, 5, 678000, time.FixedZone("", 3600))}
	const want = `{"position":7,"stream":"event-1","version":2,"type":"event.triggered","data":{  "a":  "\n<&>"},` +
		`"metadata":{"actor":"x"},"recorded_at":"2026-01-02T02:04:05.000678Z"}`
	got := e.AppendLine([]byte("before "))
	if string(got) != "before "+want || !json.Valid(bytes.TrimPrefix(got, []byte("before "))) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if string(e.Data[:2]) != "{\n" {
		t.Error("the event's own data was changed")
	}
}
