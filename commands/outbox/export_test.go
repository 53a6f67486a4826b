package outbox

// Relayed is how many events this process has moved into the log.
func (r *Relay) Relayed() int64 { return r.relayed.Load() }
