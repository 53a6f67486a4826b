//go:build race

package domain

// raceEnabled: with the race detector sync.Pool drops values at random, so allocations
// cannot be counted.
const raceEnabled = true
