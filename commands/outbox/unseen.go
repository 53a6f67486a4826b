package outbox

import "slices"

// unseen remembers which numbers of the outbox may still show up. A transaction takes its
// numbers before it commits, so a number can become visible long after greater ones; or
// never, when it is rolled back. Reading the table from its beginning every time would find
// the late ones, but would also pass over every deleted row that an old open transaction
// keeps from being vacuumed: with a busy outbox, a million of them within a minute.
//
// So the relay reads on from the mark, the greatest number it has seen, and looks into the
// gaps below it. A gap is forgotten when every transaction that was open when it was noticed
// has ended: an emitter takes its transaction id before its number (see medilab.emit).
type unseen struct {
	mark int64 // all numbers above may show up
	gaps []gap // and these, below it; in order, not overlapping
}

// gap is a run of numbers that were not visible.
type gap struct {
	first, last int64
	until       int64 // the first transaction id that was not given out when it was noticed
}

// maxGaps bounds the memory. With more, neighbours are joined across numbers that were seen:
// that costs only time.
const maxGaps = 1000

// saw notes what one reading found: the numbers of the rows that it returned, in order, the
// lowest of all there were. next is the transaction id that the next new transaction would
// have got after that reading, and oldest the oldest one that was open before it.
func (u *unseen) saw(seqs []int64, next, oldest int64) {
	if len(seqs) == 0 {
		u.forget(oldest, u.mark)
		return
	}
	last := seqs[len(seqs)-1]
	if last > u.mark {
		u.gaps = append(u.gaps, gap{u.mark + 1, last, next})
		u.mark = last
	}
	var left []gap
	for _, g := range u.gaps {
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
	u.gaps = left
	u.forget(oldest, last)
	for len(u.gaps) > maxGaps {
		u.join()
	}
}

// forget drops the gaps up to examined that no open transaction can fill.
func (u *unseen) forget(oldest, examined int64) {
	u.gaps = slices.DeleteFunc(u.gaps, func(g gap) bool { return g.until <= oldest && g.last <= examined })
}

// join halves the number of gaps.
func (u *unseen) join() {
	half := u.gaps[:0]
	for pair := range slices.Chunk(u.gaps, 2) {
		g, other := pair[0], pair[len(pair)-1]
		half = append(half, gap{g.first, other.last, max(g.until, other.until)})
	}
	u.gaps = half
}

// bounds gives the gaps as two columns.
func (u *unseen) bounds() (first, last []int64) {
	first, last = make([]int64, len(u.gaps)), make([]int64, len(u.gaps))
	for i, g := range u.gaps {
		first[i], last[i] = g.first, g.last
	}
	return first, last
}
