package outbox

// Wake makes the relay look at the outbox now instead of at its next poll.
func (r *Relay) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Relayed is how many events this process has moved into the log.
func (r *Relay) Relayed() int64 { return r.relayed.Load() }
