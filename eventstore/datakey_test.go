package eventstore

import (
	"testing"
)

// The answer of an append may be lost though it has stored the key: the next stores it again.
func TestKeyIsStoredOnce(t *testing.T) {
	pool, log := openNew(t)
	key := &DataKey{Owner: [16]byte{1}, Number: 7, Wrapped: []byte("wrapped")}
	for _, stream := range []string{"a", "b"} {
		write := Write{Stream: stream, Events: []NewEvent{{Type: "test.happened", Data: []byte(`{}`)}}}
		if _, err := log.Append(t.Context(), Unit{Writes: []Write{write}, Keys: []*DataKey{key}}); err != nil {
			t.Fatal(err)
		}
		key.stored.Store(0)
	}
	var n int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.data_keys WHERE number = 7`).Scan(&n); err != nil || n != 1 {
		t.Errorf("the key is there %d times, %v", n, err)
	}
}
