package commands

// DeliveryFigures say how busy this node is with calls.
type DeliveryFigures struct {
	InFlight     int // calls
	Waiting      int // claimed, not yet called
	WaitingBytes int // payload bytes of all in memory
	Lanes        int // webhooks that were delivered to
	Workers      int // the bound on calls in flight
}
