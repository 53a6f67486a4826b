package saga

import "github.com/medilab/webhooks/eventstore"

// sharing evens out the calls of the nodes. A node takes, in the appends that queue them,
// as many deliveries as it has room for, which costs the least. When it makes more calls
// than its peers do on average, it takes only a share and leaves the rest to them.
type sharing struct {
	others bool  // whether other nodes live
	calls  int64 // that this node made
	share  float64
	credit float64 // of what was due to this node

	workers     int   // peers that make calls, at the last comparison
	mine, peers int64 // calls until then
}

const (
	leastShare = 1. / 64
	// fewCalls between two comparisons are not worth moving to another node.
	fewCalls = 50
	// uneven is how many times the average a node may make.
	uneven = 1.2
)

// takes reports whether this node takes the next delivery that it has room for.
func (s *sharing) takes() bool {
	if s.credit += s.share; s.credit < 1 {
		return false
	}
	s.credit--
	return true
}

// compare moves the share by the calls that the nodes made since the last comparison.
func (s *sharing) compare(peers eventstore.Peers) {
	mine, theirs := s.calls-s.mine, peers.Work-s.peers
	same := peers.Workers == s.workers && theirs >= 0
	s.others, s.workers, s.mine, s.peers = peers.Others > 0, peers.Workers, s.calls, peers.Work
	switch average := float64(mine+theirs) / float64(peers.Workers+1); {
	case peers.Workers == 0:
		s.share, s.credit = 1, 0
	case !same: // a peer came or went
	case mine > fewCalls && float64(mine) > uneven*average:
		s.share = max(leastShare, s.share*average/float64(mine))
	case float64(mine) < average || mine <= fewCalls:
		s.share = min(1, 1.5*s.share)
	}
}

// balance takes in what the other nodes do, and returns the calls of this one.
func (l *lanes) balance(peers eventstore.Peers) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sharing.compare(peers)
	return l.sharing.calls
}
