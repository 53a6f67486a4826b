package domain

import "github.com/google/uuid"

// AccessID names one reading of payloads.
type AccessID uuid.UUID

// Stream names the log's stream of the reading: it is alone in it.
func (id AccessID) Stream() string { return "access-" + uuid.UUID(id).String() }

// DataRead records that somebody was shown payloads. It is appended before they leave.
type DataRead struct {
	Actor string `json:"actor"`
	What  string `json:"what"` // the operation of the API, or the command
	// IDs are the events and calls whose payloads were shown. A replay of the log, which
	// streams, has what was asked for instead.
	IDs    []string          `json:"ids"`
	Asked  map[string]string `json:"asked,omitempty"`
	Reason string            `json:"reason,omitempty"` // as the reader gave it
}

func (DataRead) ChangeType() string { return "data.read" }

func (c DataRead) AppendJSON(dst []byte) []byte { return c.form(&form{out: dst}).out }
func (c DataRead) read(f *form) Change          { c.form(f); return c }

func (c *DataRead) form(f *form) *form {
	text(f, `{"actor":`, &c.Actor)
	text(f, `,"what":`, &c.What)
	if list(f, `,"ids":[`, &c.IDs, true) {
		for i := 0; more(f, &c.IDs, i); i++ {
			text(f, "", &c.IDs[i])
		}
	}
	if f.optional(`,"asked":`, len(c.Asked) > 0) {
		f.out = append(f.out, EncodeJSON(c.Asked)...)
		f.bad = f.reading // encoding/json reads it
	}
	textOrNone(f, `,"reason":`, &c.Reason)
	return f.letters("}")
}

var _ = register(DataRead{})

// MaxReason is how long the reason of a reading may be, in bytes.
const MaxReason = 1000

// CheckReason checks the reason of a reading, which stands in the named field.
func CheckReason(field, reason string) error {
	if problem := textProblem(reason); problem != "" {
		return Invalid(field, problem)
	}
	if len(reason) > MaxReason {
		return Invalid(field, "must have at most 1000 bytes")
	}
	return nil
}
