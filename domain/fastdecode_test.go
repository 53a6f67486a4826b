package domain

import (
	"encoding/json"
	"reflect"
	"testing"
)

// TestTheFastWayIsTheGeneralWay mutates stored events: both ways of decoding
// must give the same value, or both an error.
func TestTheFastWayIsTheGeneralWay(t *testing.T) {
	for _, c := range goldenChanges {
		data := c.AppendJSON(nil)
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

func FuzzFastDecode(f *testing.F) {
	for _, c := range goldenChanges {
		f.Add(c.ChangeType(), c.AppendJSON(nil))
	}
	f.Fuzz(func(t *testing.T, changeType string, data []byte) { sameDecoded(t, changeType, data) })
}

func sameDecoded(t *testing.T, changeType string, data []byte) {
	t.Helper()
	var want Change
	var wantErr error
	switch changeType {
	case "delivery.succeeded":
		want, wantErr = generally[DeliverySucceeded](data)
	case "delivery.attempt_failed":
		want, wantErr = generally[DeliveryAttemptFailed](data)
	case "event.dispatched":
		want, wantErr = generally[EventDispatched](data)
	case "event.triggered":
		want, wantErr = generally[EventTriggered](data)
	default:
		return // these have one way
	}
	got, err := Decode(changeType, data)
	if (err == nil) != (wantErr == nil) || err == nil && !reflect.DeepEqual(got, want) {
		t.Fatalf("%s %s\n got %+v, %v\nwant %+v, %v", changeType, data, got, err, want, wantErr)
	}
}

func generally[C Change](data []byte) (Change, error) {
	var c C
	err := json.Unmarshal(data, &c)
	return c, err
}
