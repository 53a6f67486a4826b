package commands

import "github.com/medilab/webhooks/domain"

// DeliveryFigures say how busy this node is with calls.
type DeliveryFigures struct {
	InFlight     int            // calls
	Waiting      int            // claimed, not yet called
	WaitingBytes int            // payload bytes of all in memory
	Lanes        int            // webhooks that were delivered to
	FullLanes    int            // of them, with deliveries that wait as no more calls may be in flight
	Workers      int            // the bound on calls in flight
	Lacks        domain.Outcome // what this node lacks for its calls; "": nothing
}
