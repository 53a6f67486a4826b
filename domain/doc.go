// Package domain holds the rules of the product: what a webhook, an event, a delivery,
// an alert and a token are, which events move them from state to state, and the pure
// rules beside them (filters, the retry schedule, signatures, payload formats, strict JSON).
//
// It has no clock, no I/O and no randomness: times, ids and seeds arrive as arguments,
// so every decision can be taken again, on any node, and comes out the same.
package domain
