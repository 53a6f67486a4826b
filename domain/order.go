package domain

import (
	"encoding/binary"
	"slices"

	"github.com/medilab/webhooks/domain/filter"
)

// Order (contract section 7): deliveries of a webhook whose events hold the same value at
// order_by are sent one after another, in the order of the log.
//
//   - A delivery is ordered when its event is dispatched; a later change of order_by does
//     not move it. One that is asked for again is ordered by the webhook as it is then.
//   - All batches of an ordered webhook are sent one after another.
//   - With "block", a delivery that gave up holds up those behind it until it succeeds or
//     is cancelled.

// OrderAll orders all events of a webhook, instead of a path.
const OrderAll = "*"

// OrderOnFailure says what happens to those behind a delivery that gave up.
type OrderOnFailure string

// The ways to go on.
const (
	OrderSkip  OrderOnFailure = "skip"
	OrderBlock OrderOnFailure = "block"
)

// Line names the deliveries of a webhook that are sent one after another: a hash of their
// key. Two keys may share a line, so that they wait for each other.
type Line int64

const (
	// NoLine is that of deliveries that are not ordered.
	NoLine Line = 0
	// wholeLine is that of all deliveries of a webhook together.
	wholeLine Line = 1
	// lineBits keeps a line exact in JSON, whatever reads it.
	lineBits = 52
)

// LineOf returns the line of the webhook's delivery of an event with the data, for an
// event that is not dispatched to it now.
func (w Webhook) LineOf(data []byte) Line {
	if line := w.fixedLine(); line != NoLine || w.OrderBy == "" {
		return line
	}
	return lineAt(filter.Parse(data), w.OrderBy)
}

// fixedLine returns the line of the webhook's deliveries if no value decides it.
func (w *Webhook) fixedLine() Line {
	if w.OrderBy != "" && (w.OrderBy == OrderAll || w.Batch != nil) {
		return wholeLine
	}
	return NoLine
}

// byValue reports whether values decide the lines of the webhook's deliveries.
func (w *Webhook) byValue() bool { return w.OrderBy != "" && w.OrderBy != OrderAll && w.Batch == nil }

func lineAt(doc *filter.Doc, path string) Line {
	key, ok := doc.Key(path)
	if !ok {
		return NoLine
	}
	return Line(key>>(64-lineBits)) | 1<<lineBits // neither NoLine nor wholeLine
}

// Hashed returns the line under a hash with a secret, as the log keeps it: it is not told by
// a guess of the key.
func (l Line) Hashed(hash func([]byte) []byte) Line {
	if l <= wholeLine {
		return l
	}
	key := binary.BigEndian.Uint64(hash(binary.BigEndian.AppendUint64([]byte("line"), uint64(l))))
	return Line(key>>(64-lineBits)) | 1<<lineBits
}

// inLines returns the recipients with the lines that values decide. Each path is looked up
// once.
func (r *Registry) inLines(recipients []Recipient, doc *filter.Doc) []Recipient {
	recipients = slices.Clone(recipients) // they may be shared
	lines := map[string]Line{}
	for i := range recipients {
		w := r.ids.find(recipients[i].WebhookID)
		if w == nil || !w.byValue() {
			continue
		}
		line, known := lines[w.OrderBy]
		if !known {
			line = lineAt(doc, w.OrderBy)
			lines[w.OrderBy] = line
		}
		recipients[i].Line = line
	}
	return recipients
}

// checkOrder returns what is wrong with order_by and order_on_failure.
func (s *WebhookSpec) checkOrder() (refused []FieldError) {
	if s.OrderBy.set() && s.OrderBy.Value != OrderAll {
		problem := filter.CheckPath(s.OrderBy.Value)
		if problem == "" {
			problem = textProblem(s.OrderBy.Value)
		}
		if problem != "" {
			refused = append(refused, FieldError{Field: "order_by", Message: problem + "; or * for all events"})
		}
	}
	if failure := s.OrderOnFailure; failure.set() && failure.Value != OrderSkip && failure.Value != OrderBlock {
		refused = append(refused, FieldError{Field: "order_on_failure", Message: `must be "skip" or "block"`})
	}
	return refused
}
