package domain

import (
	"bytes"
	"reflect"
	"slices"
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

// What cannot be parsed has every id that stands in it, as it stands and as In has it.
func TestSubjectsInText(t *testing.T) {
	for text, want := range map[string][]string{
		`{"patient_id":60001,"a":1,"a":2}`:                 {"60001"},
		`{"patient_id":31,},}`:                             {"31"},
		`{"event_data":{"patient_id":76,"patient_id":77}}`: {"76", "77"},
		`{"patient_id":4242.0,"a":1,"a":2}`:                {"4242"},
		`{"patient_id":-1e3,}`:                             {"-1000"},
		`{"patient_id":"urn:x:1",}`:                        {"urn:x:1"},
		`{"patient_id":urn:x:1}`:                           {"urn:x:1"},
		`{patient_id:urn:x:1}`:                             {"urn:x:1"},
		`{"patient_id":"Иван 7",}`:                         {"Иван 7"},
		`{"patient_id":"\u0418-7",}`:                       {"И-7"},
		`{"patient_id":"a\"b",}`:                           {`a"b`},
		`{"note":"no end, "patient_id":"p 1"}`:             {"p 1"},
		`{"event_data":"{\n\"patient_id\":\n31\n}",}`:      {"31"},
		`{"patient_id":"\q","b":32}`:                       {"32"},
		"not json, patient 79.":                            {"79"},
		"<id>80</id>":                                      {"80"},
	} {
		got := SubjectsInText(text)
		for _, id := range want {
			if !slices.Contains(got, id) {
				t.Errorf("%s: %q has no %s", text, got, id)
			}
		}
		if slices.Contains(got, "") || slices.Contains(got, "6000") || len(got) != len(slices.Compact(slices.Sorted(slices.Values(got)))) {
			t.Errorf("%s: %q", text, got)
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
