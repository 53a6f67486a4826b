package saga

import (
	"testing"
	"time"

	"github.com/medilab/webhooks/domain"
)

func TestLowWaterMarks(t *testing.T) {
	id := domain.WebhookID{1}
	lanes := [][16]byte{id}
	began := time.Now()
	at := func(second int) time.Time { return time.Unix(1_000_000+int64(second), 0) }
	row := func(second int) *delivery { return &delivery{webhook: id, due: at(second)} }
	f := lowWaterMarks{}
	claim := func(now time.Time, rows ...*delivery) (from time.Time) {
		since := f.of(lanes, now)
		f.claimed(lanes, since, rows, at(1000), now)
		return since[0]
	}
	if from := claim(began, row(10), row(20)); !from.Equal(beginning) {
		t.Errorf("the first claim is from %v", from)
	}
	if from := claim(began, row(30)); !from.Equal(at(20).Add(-lateRows)) {
		t.Errorf("the second claim is from %v", from)
	}
	if from := claim(began); !from.Equal(at(30).Add(-lateRows)) {
		t.Errorf("the third claim is from %v", from)
	}
	if from := claim(began); !from.Equal(at(30).Add(-lateRows)) {
		t.Errorf("a claim of nothing moved the mark to %v", from)
	}
	later := began.Add(mostWhole)
	if from := claim(later, row(5)); !from.Equal(beginning) {
		t.Errorf("after a while the whole lane is due, but the claim is from %v", from)
	}
	if from := claim(later); !from.Equal(at(5).Add(-lateRows)) {
		t.Errorf("older rows than the mark may follow those, but the claim is from %v", from)
	}
	if claim(later.Add(mostWhole)); !f[id].due.Equal(at(1000).Add(-lateRows)) {
		t.Errorf("with nothing left the mark is %v", f[id].due)
	}
}
