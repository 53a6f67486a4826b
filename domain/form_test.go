package domain

import (
	"encoding/json"
	"reflect"
	"testing"
)

// Stored events, and what is nearly one, decode to what encoding/json makes of them.
func TestEventsDecodeAsByEncodingJSON(t *testing.T) {
	for _, c := range goldenChanges {
		data := AppendJSON(nil, c)
		sameDecoded(t, c.ChangeType(), data)
		for i := range data {
			for _, swap := range []byte{'"', '\\', ' ', '0', '}', ',', 0xff, 'Z', '['} {
				mutated := append([]byte(nil), data...)
				mutated[i] = swap
				sameDecoded(t, c.ChangeType(), mutated)
			}
			sameDecoded(t, c.ChangeType(), data[:i])
			sameDecoded(t, c.ChangeType(), append(append(append([]byte(nil), data[:i]...), ' '), data[i:]...))
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range goldenChanges {
		f.Add(c.ChangeType(), AppendJSON(nil, c))
	}
	f.Fuzz(func(t *testing.T, changeType string, data []byte) { sameDecoded(t, changeType, data) })
}

func sameDecoded(t *testing.T, changeType string, data []byte) {
	t.Helper()
	golden := goldenOf(changeType)
	if golden == nil {
		return
	}
	zero := reflect.New(reflect.TypeOf(golden))
	wantErr := json.Unmarshal(data, zero.Interface())
	want := zero.Elem().Interface()
	got, err := Decode(changeType, data)
	if (err == nil) != (wantErr == nil) || err == nil && !reflect.DeepEqual(got, want) {
		t.Fatalf("%s %s\n got %+v, %v\nwant %+v, %v", changeType, data, got, err, want, wantErr)
	}
}

func goldenOf(changeType string) Change {
	for _, c := range goldenChanges {
		if c.ChangeType() == changeType {
			return c
		}
	}
	return nil
}
