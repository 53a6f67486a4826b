package projections

import (
	"math"
	"sort"
)

// histogram counts durations in buckets whose bounds never change, so that
// histograms add up over any range and equal their rebuild. A percentile is off
// by at most the width of a bucket, 10 %.
type histogram = countsBy[int]

// bounds are the buckets' upper ends in microseconds: from 100 µs, each a tenth
// above the one before, to beyond the longest call. They are computed in integers,
// so that every machine has the same.
var bounds = func() []int64 {
	const longest = 400_000_000 // µs
	list := []int64{100}
	for last := list[0]; last < longest; last = list[len(list)-1] {
		list = append(list, last+(last+9)/10)
	}
	return list
}()

func bucketOf(microseconds int64) int {
	return min(sort.Search(len(bounds), func(i int) bool { return microseconds <= bounds[i] }), len(bounds)-1)
}

// percentile returns the least duration in microseconds that at least the share
// of all durations does not exceed (nearest rank: of three calls the 99th
// percentile is the longest), as the middle of its bucket.
func percentile(h histogram, share float64) int64 {
	total := int64(0)
	for _, bucket := range h {
		total += bucket.n
	}
	const rounding = 1e-9 // 0.95 of 20 is the 19th, whatever floats make of it
	rank := max(1, int64(math.Ceil(share*float64(total)-rounding)))
	for _, bucket := range h {
		if rank -= bucket.n; rank <= 0 {
			low := int64(0)
			if bucket.key > 0 {
				low = bounds[bucket.key-1]
			}
			return (low + bounds[bucket.key]) / 2
		}
	}
	return 0
}
