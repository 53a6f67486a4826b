package saga

import (
	"testing"

	"github.com/medilab/webhooks/eventstore"
)

// However the events come in, the nodes end up with about as many calls each: what one
// leaves, the others take.
func TestSharingEvensOutTheCalls(t *testing.T) {
	for name, incoming := range map[string][]int64{
		"all at one":    {1200, 0, 0, 0},
		"even":          {300, 300, 300, 300},
		"none at first": {0, 400, 400, 400},
		"too few":       {20, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			nodes := make([]sharing, len(incoming))
			for i := range nodes {
				nodes[i].share = 1
			}
			var made []int64
			for range 30 {
				made = make([]int64, len(nodes))
				var left int64
				for i, n := range incoming {
					for range n {
						if nodes[i].takes() {
							made[i]++
						} else {
							left++
						}
					}
				}
				for ; left > 0; left-- { // to whoever is least busy
					least := 0
					for i := range made {
						if made[i] < made[least] {
							least = i
						}
					}
					made[least]++
				}
				for i := range nodes {
					nodes[i].calls += made[i]
				}
				for i := range nodes {
					peers := eventstore.Peers{Others: len(nodes) - 1, Workers: len(nodes) - 1}
					for j := range nodes {
						if i != j {
							peers.Work += nodes[j].calls
						}
					}
					nodes[i].compare(peers)
				}
			}
			if incoming[0] == 20 {
				if made[0] != 20 {
					t.Errorf("few calls are moved to others: %v", made)
				}
				return
			}
			for _, n := range made {
				if 10*n > 17*300 || 17*n < 10*300 {
					t.Errorf("the calls are not even: %v", made)
				}
			}
		})
	}
}

func TestSharingAloneTakesAll(t *testing.T) {
	s := sharing{share: 1}
	s.calls = 1000
	s.compare(eventstore.Peers{Others: 1, Workers: 1})
	s.calls = 2000
	s.compare(eventstore.Peers{Others: 1, Workers: 1})
	if s.share >= 1 {
		t.Fatalf("beside an idle node the share is %v", s.share)
	}
	if s.compare(eventstore.Peers{}); s.share != 1 || !s.takes() {
		t.Errorf("alone the share is %v", s.share)
	}
}
