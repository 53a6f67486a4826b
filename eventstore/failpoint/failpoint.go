// Package failpoint names the points at which the fault campaign ends or stops
// the process. A binary knows how to only when it is built with the tag
// failpoints; in every other the points are empty and inlined away.
package failpoint

// Point is a place in the way of an event at which a fault tells most.
type Point string

// The points.
const (
	// AfterCommit: a batch is in the log, and nobody in this process knows yet.
	AfterCommit Point = "after-commit"
	// AfterClaim: the queue says that deliveries are this node's, its memory does not.
	AfterClaim Point = "after-claim"
	// BeforeCall: the node has seen that it may act on what it owns, and is about to call.
	BeforeCall Point = "before-call"
	// AfterCall: the receiver has answered, and nothing is recorded.
	AfterCall Point = "after-call"
	// InPage: a page's changes are made, and neither they nor the reader's place committed.
	InPage Point = "in-page"
	// InRebuild: a part of a read model's new tables is filled.
	InRebuild Point = "in-rebuild"
)

// Variable is the environment variable that arms one point in a binary built
// with the tag: POINT:kill:N or POINT:stop:N sends the process SIGKILL or SIGSTOP
// when it passes the point for the N-th time.
const Variable = "MEDILAB_FAILPOINT"
