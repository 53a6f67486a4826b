package outbox

import "slices"

// gapTracker remembers which numbers of the outbox may still become visible. A transaction takes
// its numbers before it commits, so a number can become visible long after greater ones, or never
// if the transaction is rolled back. Reading the table from its beginning every time would find
// the late ones, but would also scan every deleted row that an old open transaction keeps from
// being vacuumed: with a busy outbox, a million of them within a minute.
//
// So the relay reads on from the high-water mark and looks into the gaps below it. A gap is
// forgotten when every transaction that was open when it was noticed has ended: an emitter takes
// its transaction id before its number (see medilab.emit).
type gapTracker struct {
	highWater int64 // the greatest number seen; all above may become visible
	gaps      []gap // below it; in order, not overlapping
}

// gap is a range of numbers that were not visible.
type gap struct {
	first, last int64
	until       int64 // the next transaction id when it was noticed
}

// maxGaps bounds the memory. If there are more, neighbours are joined across numbers that were
// seen, which costs only time.
const maxGaps = 1000

// observe notes the result of one read: the numbers of the rows that it returned, in order, the
// lowest of all there were. next is the id that the next transaction would have got after the
// read, and oldest that of the oldest transaction open before it.
func (t *gapTracker) observe(seqs []int64, next, oldest int64) {
	if len(seqs) == 0 {
		t.forget(oldest, t.highWater)
		return
	}
	last := seqs[len(seqs)-1]
	if last > t.highWater {
		t.gaps = append(t.gaps, gap{t.highWater + 1, last, next})
		t.highWater = last
	}
	var left []gap
	for _, g := range t.gaps {
		from, _ := slices.BinarySearch(seqs, g.first)
		for ; from < len(seqs) && seqs[from] <= g.last; from++ {
			if g.first < seqs[from] {
				left = append(left, gap{g.first, seqs[from] - 1, g.until})
			}
			g.first = seqs[from] + 1
		}
		if g.first <= g.last {
			left = append(left, g)
		}
	}
	t.gaps = left
	t.forget(oldest, last)
	for len(t.gaps) > maxGaps {
		t.join()
	}
}

// forget drops the gaps up to examined that no open transaction can fill.
func (t *gapTracker) forget(oldest, examined int64) {
	t.gaps = slices.DeleteFunc(t.gaps, func(g gap) bool { return g.until <= oldest && g.last <= examined })
}

// join halves the number of gaps.
func (t *gapTracker) join() {
	half := t.gaps[:0]
	for pair := range slices.Chunk(t.gaps, 2) {
		g, other := pair[0], pair[len(pair)-1]
		half = append(half, gap{g.first, other.last, max(g.until, other.until)})
	}
	t.gaps = half
}

// bounds returns the gaps as two columns.
func (t *gapTracker) bounds() (first, last []int64) {
	for _, g := range t.gaps {
		first, last = append(first, g.first), append(last, g.last)
	}
	return first, last
}
