package domain

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/medilab/webhooks/domain/envelope"
)

func testKeys(t *testing.T, numbers ...int64) (keys envelope.Keys) {
	t.Helper()
	for _, n := range numbers {
		key, err := envelope.KeyOf(envelope.KeyID{Owner: envelope.Owner{1}, Until: 7, Number: n}, bytes.Repeat([]byte{byte(n)}, 32), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, &key)
	}
	return envelope.Join(keys)
}

func TestContentIsSealed(t *testing.T) {
	call := goldenCall()
	call.Header = append(call.Header, HeaderField{"ETag", `"Testov"`}) // escaped in JSON
	call.Body = []byte("Testov")
	for _, keys := range []envelope.Keys{testKeys(t, 1), testKeys(t, 2, 1)} {
		call.Keys = keys
		for _, change := range []Enveloped{
			EventTriggered{EventType: "patient.created", Recipients: []Recipient{}, EventData: []byte(`{"name": "Testov"}`), Content: Content{Keys: keys}},
			DeliverySucceeded{Call: call},
			DeliveryAttemptFailed{Call: call, NextAttemptAt: goldenTime},
			DeliveryOutcomeLate{Call: call},
			DeliveryTested{Call: call, EventData: []byte(`{"name": "Testov"}`)},
		} {
			stored := AppendJSON(nil, change)
			if bytes.Contains(stored, []byte("Testov")) || bytes.Contains(stored, []byte("VGVzdG92")) {
				t.Errorf("%s is stored in clear: %s", change.ChangeType(), stored)
			}
			sealed, err := Decode(change.ChangeType(), stored)
			if err != nil {
				t.Fatal(err)
			}
			ids, err := sealed.(Enveloped).AppendSealedWith(nil)
			if err != nil || len(ids) != len(keys) {
				t.Errorf("%s needs the keys %v, %v", change.ChangeType(), ids, err)
			}
			opened, err := sealed.(Enveloped).Opened(keys, false)
			if err != nil {
				t.Fatal(err)
			}
			if e, ok := opened.(EventTriggered); ok {
				e.SealedSize = 0
				opened = e
			}
			if !reflect.DeepEqual(opened, Change(change)) {
				t.Errorf("got\n%+v\nwant\n%+v", opened, change)
			}
			if _, err := sealed.(Enveloped).Opened(testKeys(t, 3), false); err == nil {
				t.Errorf("%s is opened by another key", change.ChangeType())
			}
			erased, err := sealed.(Enveloped).Opened(nil, false)
			if err != nil || bytes.Contains(AppendJSON(nil, erased), []byte("Testov")) {
				t.Errorf("erased: %+v, %v", erased, err)
			}
		}
	}
}

func TestSubjectPaths(t *testing.T) {
	paths := ParseSubjectPaths("patient_id, visit.patients.id")
	for data, want := range map[string][]string{
		`{"patient_id": "a"}`: {"a"},
		`{"patient_id": 17, "visit": {"patients": [{"id": "b"}, {"id": "17"}, {"id": null}]}}`: {"17", "b"},
		`{"patient_id": ["a", "\u0062"]}`:                      {"a", "b"},
		`{"patient_id": {"id": "a"}, "visit": "b"}`:            nil,
		`{"patient_id": [1.` + strings.Repeat("0", 200) + `]}`: {"1." + strings.Repeat("0", 200)}, // no such costs what its digits would
		`{"patient_id": [1, 1.0, 1e0, 10E-1, 1.50, -0, 12e2]}`: {"1", "1.5", "0", "1200"},
		`{"patient_id": [1e300, 1e-999999999]}`:                {"1e300", "1e-999999999"},
		`{}`:                                                   nil,
	} {
		if got := paths.In([]byte(data)); !reflect.DeepEqual(got, want) {
			t.Errorf("%s has %q, want %q", data, got, want)
		}
	}
}
