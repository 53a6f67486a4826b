//go:build !race

package strictjson

import "testing"

// With the race detector sync.Pool drops values at random, so allocations cannot be counted.
func TestCheckJSONAllocatesNothingForUsualBodies(t *testing.T) {
	body := usualBody()
	if err := Check(body); err != nil {
		t.Fatal(err)
	}
	if allocs := testing.AllocsPerRun(100, func() {
		if Check(body) != nil {
			t.Error("refused")
		}
	}); allocs > 0.5 {
		t.Fatalf("%v allocations", allocs)
	}
}
