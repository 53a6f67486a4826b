package domain

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/medilab/webhooks/domain/envelope"
)

// Content is how the log keeps what an event tells of patients: encrypted by its keys. In
// logs of versions before migration 28 it is in clear.
type Content struct {
	Keys   envelope.Keys `json:"-"`                // that encrypt what is appended; none: it is kept in clear
	Sealed []byte        `json:"sealed,omitempty"` // what the log holds, until it is opened
	Erased bool          `json:"-"`                // a key of it is destroyed: there is none

	// Expired says that it was destroyed for its age.
	Expired bool `json:"-"`

	lost []envelope.KeyID // that it took to be opened, when it is erased
}

// Enveloped is an event with content.
type Enveloped interface {
	Change
	// AppendSealedWith appends the keys that its content takes to be opened; none: it is open.
	AppendSealedWith(dst []envelope.KeyID) ([]envelope.KeyID, error)
	// Opened returns the event with its content. Without keys that is erased, or expired.
	Opened(keys envelope.Keys, expired bool) (Change, error)
	// IsOpened reports whether its content was sealed, and is open or erased.
	IsOpened() bool
	// Unlocks returns the keys that open the content, if it is opened.
	Unlocks() envelope.Keys
	// IsEnclosed reports whether it has keys that encrypt its content, or no content.
	IsEnclosed() bool
	// Enclosed returns the event with the content to be encrypted by the keys; none: in clear.
	Enclosed(keys envelope.Keys) Change
}

// What follows implements Enveloped.

func (c Content) AppendSealedWith(dst []envelope.KeyID) ([]envelope.KeyID, error) {
	if len(c.Sealed) == 0 {
		return dst, nil
	}
	return envelope.AppendIDs(dst, c.Sealed)
}

func (c DeliveryTested) AppendSealedWith(dst []envelope.KeyID) ([]envelope.KeyID, error) {
	return Content{Sealed: c.SealedData}.AppendSealedWith(dst)
}

func (c Content) IsOpened() bool         { return c.Erased || len(c.Keys) > 0 && len(c.Sealed) == 0 }
func (c Content) Unlocks() envelope.Keys { return c.Keys }

func (c EventTriggered) IsEnclosed() bool { return len(c.Keys) > 0 }
func (c DeliveryTested) IsEnclosed() bool { return len(c.Keys) > 0 }

// IsEnclosed is of the outcomes too. What had no answer has no content.
func (c Call) IsEnclosed() bool { return len(c.Keys) > 0 || len(c.Header) == 0 && len(c.Body) == 0 }

func (c EventTriggered) Enclosed(keys envelope.Keys) Change        { c.Content.Keys = keys; return c }
func (c DeliverySucceeded) Enclosed(keys envelope.Keys) Change     { c.Content.Keys = keys; return c }
func (c DeliveryAttemptFailed) Enclosed(keys envelope.Keys) Change { c.Content.Keys = keys; return c }
func (c DeliveryOutcomeLate) Enclosed(keys envelope.Keys) Change   { c.Content.Keys = keys; return c }
func (c DeliveryTested) Enclosed(keys envelope.Keys) Change        { c.Content.Keys = keys; return c }

func (c EventTriggered) Opened(keys envelope.Keys, expired bool) (_ Change, err error) {
	c.Content, c.EventData, err = c.open(keys, expired)
	return c, err
}

func (c DeliverySucceeded) Opened(keys envelope.Keys, expired bool) (Change, error) {
	err := c.openAnswer(keys, expired)
	return c, err
}

func (c DeliveryAttemptFailed) Opened(keys envelope.Keys, expired bool) (Change, error) {
	err := c.openAnswer(keys, expired)
	return c, err
}

func (c DeliveryOutcomeLate) Opened(keys envelope.Keys, expired bool) (Change, error) {
	err := c.openAnswer(keys, expired)
	return c, err
}

func (c DeliveryTested) Opened(keys envelope.Keys, expired bool) (Change, error) {
	_, data, err := Content{Sealed: c.SealedData, Keys: c.Keys}.open(keys, expired)
	if err == nil {
		c.EventData, c.SealedData = data, nil
		err = c.openAnswer(keys, expired)
	}
	return c, err
}

// open returns what is sealed, and the content as it is then.
func (c Content) open(keys envelope.Keys, expired bool) (Content, []byte, error) {
	if len(keys) == 0 {
		lost, err := c.AppendSealedWith(nil)
		if lost == nil { // it was opened before
			for _, key := range c.Keys {
				lost = append(lost, key.KeyID)
			}
		}
		return Content{Erased: true, Expired: expired, lost: lost}, nil, err
	}
	plain, err := keys.Open(c.Sealed)
	if err != nil {
		return c, nil, fmt.Errorf("open encrypted content: %w", err)
	}
	return Content{Keys: keys}, plain, nil
}

// Size returns the bytes of event_data, opened or not.
func (c EventTriggered) Size() int { return max(c.SealedSize, len(c.EventData)) }

// seal encrypts event_data, if there are keys.
func (c *EventTriggered) seal() {
	if len(c.Keys) > 0 {
		c.SealedSize, c.Sealed = len(c.EventData), c.Keys.Seal(c.EventData)
	}
}

// seal encrypts what the receiver answered, if there are keys: also that it answered
// nothing, so that the call can be told to be erased.
func (c *Call) seal() {
	if len(c.Keys) == 0 {
		return
	}
	const usual = 256 // bytes of an answer
	f := form{out: make([]byte, 0, usual+2*len(c.Body))}
	c.answer(&f)
	c.Sealed, c.Header, c.Body = c.Keys.Seal(f.out), nil, nil
}

// openAnswer is the reverse of seal.
func (c *Call) openAnswer(keys envelope.Keys, expired bool) error {
	content, plain, err := c.open(keys, expired)
	if err != nil {
		return err
	}
	if c.Content = content; content.Erased {
		c.Header, c.Body = nil, nil
		return nil
	}
	f := form{in: plain, reading: true}
	if c.answer(&f); !f.bad && len(f.in) == 0 {
		return nil
	}
	whole := append(append([]byte(`{"response_truncated":`), fmt.Sprint(c.Truncated)...), plain...)
	if err := json.Unmarshal(append(whole, '}'), c); err != nil {
		return fmt.Errorf("read an encrypted answer: %w", err)
	}
	return nil
}

// sayErased marks content that is erased, for those who are shown it: the log never holds it.
func (c Content) sayErased(f *form) {
	switch {
	case f.reading || !c.Erased:
	case c.Expired:
		f.letters(`,"expired":true`)
	default:
		f.letters(`,"erased":true`)
	}
}

// AppendClear appends the stored form of an event with its content in clear.
func AppendClear(dst []byte, c Change) []byte {
	if enveloped, ok := c.(Enveloped); ok {
		c = enveloped.Enclosed(nil)
	}
	return AppendJSON(dst, c)
}

// SubjectsOf returns the subjects of whom an event of the clinic, or a test, tells, also
// when it is erased: none when it is in clear.
func SubjectsOf(change any) (owners []envelope.Owner) {
	var content Content
	var sealed []byte
	switch c := change.(type) {
	case EventTriggered:
		content, sealed = c.Content, c.Sealed
	case DeliveryTested:
		content, sealed = c.Content, c.SealedData
	default:
		return nil
	}
	ids, _ := Content{Sealed: sealed}.AppendSealedWith(nil)
	ids = append(ids, content.lost...)
	for _, key := range content.Keys {
		ids = append(ids, key.KeyID)
	}
	for _, id := range ids {
		if id.Owner != envelope.OfPeriods && !slices.Contains(owners, id.Owner) {
			owners = append(owners, id.Owner)
		}
	}
	return owners
}
