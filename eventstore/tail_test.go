package eventstore

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

func batchOf(first Position, n, size int) []Event {
	batch := make([]Event, n)
	for i := range batch {
		batch[i] = Event{Position: first + Position(i), Data: make([]byte, size)}
	}
	return batch
}

// Every page that the tail gives is what follows its position, whole and without
// a gap; what it cannot give it does not.
func TestTailGivesWhatFollows(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	tail := newTail()
	head := Position(100)
	for range 200 {
		n := 1 + random.IntN(300)
		tail.add(batchOf(head+1, n, 100), 1)
		head += Position(n)
		oldest := tail.batches[0][0].Position
		for range 20 {
			after, limit := head-Position(random.IntN(25_000)), 1+random.IntN(1000)
			page := tail.after(after, limit)
			want := min(limit, int(head-after))
			if after+1 < oldest {
				want = 0
			}
			if len(page) != want {
				t.Fatalf("%d events after %d, limit %d, of %d to %d; want %d", len(page), after, limit, oldest, head, want)
			}
			for i := range page {
				if page[i].Position != after+Position(i)+1 {
					t.Fatalf("position %d at %d after %d", page[i].Position, i, after)
				}
			}
		}
	}
	oldest := tail.batches[0][0].Position
	wanted := []Position{head, oldest, oldest + 700, head}
	found := tail.at(wanted)
	for i, at := range wanted {
		if len(found) != len(wanted) || found[i].Position != at {
			t.Fatalf("%d events at %d", len(found), wanted)
		}
	}
	for _, missing := range []Position{oldest - 1, head + 1} {
		if found := tail.at([]Position{head, missing}); found != nil {
			t.Errorf("%d events of %d to %d at %d", len(found), oldest, head, missing)
		}
	}
	if tail.after(head, 10) != nil || tail.after(head+5, 10) != nil {
		t.Error("it gives what is not there yet")
	}
}

// Streams are whole as of the head, or not there: when they began before what is held, or another
// process has appended since.
func TestTailHoldsWholeStreams(t *testing.T) {
	tail := newTail()
	at := func(second int) time.Time { return time.Unix(int64(second), 0) }
	head, versions := Position(0), map[string]int64{"old": 1}
	for i, streams := range [][]string{{"a", "b"}, {"d", "c", "d", "old"}, {"c"}} {
		batch := batchOf(head+1, len(streams), 1)
		head += Position(len(streams))
		for n, stream := range streams {
			versions[stream]++
			batch[n].Stream, batch[n].Version, batch[n].RecordedAt = stream, versions[stream], at(10+i)
		}
		tail.add(batch, 1)
	}
	for _, c := range []struct {
		streams []string
		since   int
		head    Position
		want    []Position // nil: it does not hold them
	}{
		{[]string{"d", "c"}, 11, 7, []Position{3, 4, 5, 7}},
		{[]string{"c"}, 11, 7, []Position{4, 7}},
		{[]string{"e"}, 11, 5, []Position{}},
		{[]string{"d"}, 10, 7, nil}, // what was recorded in the same moment may be gone
		{[]string{"d"}, 9, 7, nil},
		{[]string{"d"}, 11, 8, nil},
		{[]string{"d", "old"}, 11, 7, nil},
		{[]string{"c"}, 12, 7, nil},
	} {
		var got []Position
		if events := tail.of(c.streams, at(c.since), c.head); events != nil {
			got = []Position{}
			for _, e := range events {
				got = append(got, e.Position)
			}
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v since %d up to %d: %v, want %v", c.streams, c.since, c.head, got, c.want)
		}
	}
}

func TestTailIsBounded(t *testing.T) {
	tail := newTail()
	for i := range 100 {
		tail.add(batchOf(Position(1+i*1000), 1000, 1), 1)
	}
	if tail.events > maxTailEvents || tail.events < maxTailEvents-1000 {
		t.Errorf("it holds %d events", tail.events)
	}
	tail.add(batchOf(100_001, 2, maxTailBytes/2+1), 1)
	if len(tail.batches) != 0 || tail.events != 0 || tail.bytes != 0 {
		t.Errorf("%d events of %d bytes are too large to keep", tail.events, tail.bytes)
	}
	tail.add(batchOf(100_003, 5, 1), 1)
	tail.add(batchOf(200_000, 3, 1), 1) // another process appended in between
	if tail.events != 3 || tail.after(100_002, 10) != nil || len(tail.after(200_000, 10)) != 2 {
		t.Errorf("it holds %d events over a gap", tail.events)
	}
}

// Who is not interested reads what it must from memory all the same: it is woken
// before the tail drops what it has not read.
func TestWhoIsNotInterestedIsWokenBeforeTheTailEnds(t *testing.T) {
	for _, size := range []int{1, 10_000} {
		n := &listener{interested: func([]Event) bool { return false }}
		tail := newTail()
		read, head, woken := Position(0), Position(0), 0
		for range 1000 {
			batch := batchOf(head+1, 100, size)
			tail.add(batch, 1)
			head += 100
			if n.wants(batch) {
				if tail.after(read, 1) == nil {
					t.Fatalf("woken at %d, and what follows %d is not in memory any more", head, read)
				}
				read, woken = head, woken+1
			}
		}
		if woken == 0 || woken > 200 {
			t.Errorf("events of %d bytes: %d batches of 1000 woke it", size, woken)
		}
	}
	if n := (&listener{interested: func([]Event) bool { return false }}); n.wants(batchOf(1, 1, 1)) {
		t.Error("one small batch woke it")
	}
}
